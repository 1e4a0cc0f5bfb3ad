"""A small notes application in one file: Django, SQLite, and the OpenTelemetry SDK with its instrumentation.

    python notes.py DATABASE_FILE [--port 8000]

Spans leave over OTLP/gRPC to OTEL_EXPORTER_OTLP_ENDPOINT (default http://localhost:4317).
"""

import argparse
import json
import os
import sys

import django
from django.conf import settings
from django.core.servers.basehttp import WSGIServer, WSGIRequestHandler
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.http import HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

tracer = trace.get_tracer("notes")


def notes(request):
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, text FROM notes ORDER BY id")
        rows = [{"id": note_id, "text": text} for note_id, text in cursor.fetchall()]
    return JsonResponse({"notes": rows})


@csrf_exempt
def create(request):
    text = request.POST.get("text") or request.GET.get("text") or "a note"
    with tracer.start_as_current_span("note_create") as span:
        span.set_attribute("note.length", len(text))
        span.set_attribute("note.tags", ["demo", "notes"])
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO notes (text) VALUES (%s)", [text])
        span.add_event("stored", {"note.text": text})
    return HttpResponse(json.dumps({"created": text}), content_type="application/json", status=201)


def show(request, note_id):
    with connection.cursor() as cursor:
        cursor.execute("SELECT text FROM notes WHERE id = %s", [note_id])
        row = cursor.fetchone()
    if row is None:
        raise LookupError(f"there is no note {note_id}")
    return JsonResponse({"id": note_id, "text": row[0]})


urlpatterns = [path("", notes), path("create", create), path("notes/<int:note_id>", show)]


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("database")
    arguments.add_argument("--port", type=int, default=8000)
    options = arguments.parse_args()

    provider = TracerProvider(resource=Resource.create({"service.name": "django-notes-app", "service.version": "1.0"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=500))
    trace.set_tracer_provider(provider)

    settings.configure(
        ALLOWED_HOSTS=["localhost", "127.0.0.1"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": options.database}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        LOGGING_CONFIG=None,
        MIDDLEWARE=[],
        ROOT_URLCONF=__name__,
        SECRET_KEY=os.urandom(16).hex(),
    )
    SQLite3Instrumentor().instrument()
    DjangoInstrumentor().instrument()
    django.setup()
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
    server = WSGIServer(("127.0.0.1", options.port), WSGIRequestHandler)
    server.set_app(get_wsgi_application())
    print(f"notes application listens on http://127.0.0.1:{server.server_port}", file=sys.stderr)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    provider.shutdown()


if __name__ == "__main__":
    main()
