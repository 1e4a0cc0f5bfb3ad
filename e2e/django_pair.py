"""Two Django applications of some years ago, one of which calls the other, exporting to a Jaeger agent's UDP port. Each runs by itself:

    django_pair.py webapi PORT AGENT_PORT
    django_pair.py webapp PORT AGENT_PORT WEBAPI_PORT

Logs, with the trace's id, go to standard error.
"""

import logging
import sys

from django.conf import settings
from django.core.servers.basehttp import WSGIServer, WSGIRequestHandler

NAME, PORT, AGENT_PORT, *REST = sys.argv[1:]
# The instrumentation adds its middleware to what is configured.
settings.configure(ROOT_URLCONF=__name__, SECRET_KEY="test", ALLOWED_HOSTS=["*"], MIDDLEWARE=[])

import django  # noqa: E402
import requests  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402
from opentelemetry import trace  # noqa: E402
from opentelemetry.exporter.jaeger.thrift import JaegerExporter  # noqa: E402
from opentelemetry.instrumentation.django import DjangoInstrumentor  # noqa: E402
from opentelemetry.instrumentation.logging import LoggingInstrumentor  # noqa: E402
from opentelemetry.instrumentation.requests import RequestsInstrumentor  # noqa: E402
from opentelemetry.sdk.resources import Resource  # noqa: E402
from opentelemetry.sdk.trace import TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: E402

log = logging.getLogger(NAME)


def add(request):
    a, b = int(request.GET["a"]), int(request.GET["b"])
    with trace.get_tracer(NAME).start_as_current_span("Heavy task") as span:
        span.set_attribute("add.sum", a + b)
    return JsonResponse({"sum": a + b})


def service(request):
    log.warning("asking webapi")
    answer = requests.get(f"http://127.0.0.1:{REST[0]}/add", params={"a": 1, "b": request.GET.get("b", "2")}, timeout=10)
    return JsonResponse(answer.json(), status=answer.status_code)


urlpatterns = [path("add", add)] if NAME == "webapi" else [path("service", service)]


def main():
    provider = TracerProvider(resource=Resource.create({"service.name": NAME}))
    exporter = JaegerExporter(agent_host_name="127.0.0.1", agent_port=int(AGENT_PORT))
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=200))
    trace.set_tracer_provider(provider)
    DjangoInstrumentor().instrument()
    RequestsInstrumentor().instrument()
    LoggingInstrumentor().instrument(set_logging_format=True)
    django.setup()
    server = WSGIServer(("127.0.0.1", int(PORT)), WSGIRequestHandler)
    server.set_app(get_wsgi_application())
    server.serve_forever()


main()
