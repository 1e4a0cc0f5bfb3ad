"""What Vivace should make of a request: what the OpenTelemetry Collector makes of it, but for the rules that are listed here.

Each rule is a row of "Where Vivace differs on purpose" in docs/compatibility.md.
"""

import json
from collections import namedtuple

import otlp

VALUE_DEPTH_MAX = 24

Expected = namedtuple("Expected", "is_refused traces rejected why")


def expected(ask, format, body):
    """`ask` is the collector's decoder."""
    content, why = ask(format, body)
    if content is None:
        return Expected(True, {}, 0, why)
    traces, rejected, seen = {}, 0, set()
    for span in spans_of(otlp.from_protobuf("TracesData", content)):
        if not is_taken(span):
            rejected += 1
            continue
        kind = span.get("kind", 0)
        identity = (span["traceId"], span["spanId"], kind if kind in range(8) else 0)
        spans = traces.setdefault(span["traceId"], [])
        if identity not in seen:  # of spans with the same id and kind the first stays
            seen.add(identity)
            spans.append(as_held(span))
    return Expected(False, traces, rejected, None)


def spans_of(traces):
    """Every span with its resource and scope, by names. Attributes may change their order."""
    for resource_spans in otlp.to_plain("TracesData", traces).get("resourceSpans", []):
        for scope_spans in resource_spans.get("scopeSpans", []):
            for span in scope_spans.get("spans", []):
                span = {**span, "resource": resource_spans.get("resource", {}), "scope": scope_spans.get("scope", {})}
                for holder in [span, span["resource"], span["scope"], *span.get("events", []), *span.get("links", [])]:
                    if "attributes" in holder:
                        holder["attributes"] = sorted(holder["attributes"], key=json.dumps)
                yield span


def is_taken(span):
    """Spans whose ids are none, and whose values lie too deep, are rejected one by one."""
    if len(span.get("traceId", "")) != 32 or len(span.get("spanId", "")) != 16:
        return False
    if not int(span["traceId"], 16) or not int(span["spanId"], 16):
        return False
    return all(depth(holder) <= VALUE_DEPTH_MAX for holder in (span, span["resource"], span["scope"]))


def depth(plain):
    """How deep values lie within values."""
    if isinstance(plain, list):
        return max(map(depth, plain), default=0)
    if not isinstance(plain, dict):
        return 0
    inner = max(map(depth, plain.values()), default=0)
    return inner + (any(field.name in plain for field in otlp.MESSAGES["AnyValue"].values()))


def as_held(span):
    """A span as a vParquet4 block holds it, and as answers show it."""
    span = json.loads(json.dumps(span))
    span.pop("flags", None)  # no flags
    for link in span.get("links", []):
        link.pop("flags", None)
    resource = span["resource"]
    resource.pop("entityRefs", None)  # no references to entities
    start, end = span.get("startTimeUnixNano", 0), span.get("endTimeUnixNano", 0)
    if end < start:  # answers show the start as the end
        span["endTimeUnixNano"] = start
    return span


def difference(want, got):
    """Where two lists of spans differ."""
    if len(want) != len(got):
        return f"{len(got)} spans instead of {len(want)}: {got} instead of {want}"
    parts = []
    for a, b in zip(want, got, strict=True):
        parts += [f"{name}: {b.get(name)} instead of {a.get(name)}" for name in sorted({*a, *b}) if a.get(name) != b.get(name)]
    return "; ".join(parts)
