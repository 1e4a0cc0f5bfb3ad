"""What Vivace should make of a request: what the OpenTelemetry Collector makes of it, but for the rules that are listed here.

Most are rows of "Where Vivace differs on purpose" in docs/compatibility.md; the others are the JSON mapping of protobuf, where the
collector is stricter or laxer than that.
"""

import json
from collections import namedtuple

import otlp
import otlp_json

ID_BYTES = {"traceId": 16, "spanId": 8, "parentSpanId": 8}

# `rejected`: spans of which partial success tells; where there is no other span, the request is refused with the same words.
Expected = namedtuple("Expected", "is_refused traces rejected why", defaults=[{}, 0, None])


def expected(ask, format, body):
    """`ask` is the collector's decoder."""
    return of_json(ask, body) if format == "j" else of_protobuf(ask, body)


def of_json(ask, body):
    """Whether it is JSON, and what the mapping allows, is decided there; what it holds the collector says."""
    try:
        plain = otlp_json.strict(body)
    except otlp_json.Refused as error:
        return Expected(True, why=str(error))
    content, why = ask("j", body)
    if content is None or b"null" in body or b"nstrumentation" in body:
        content, why = ask("j", json.dumps(plain).encode())
    if content is None:
        return but_for_ids(ask, otlp_json.tree(plain, "TracesData"))
    return of_spans(otlp.from_protobuf("TracesData", content))


def of_protobuf(ask, body):
    try:
        body = usual("TracesData", body)
        tree = otlp.from_protobuf("TracesData", body)
    except otlp.Malformed as error:
        return Expected(True, why=str(error))
    content, why = ask("p", body)
    if content is None:
        return but_for_ids(ask, tree)
    return of_spans(otlp.from_protobuf("TracesData", content))


def usual(message, data, depth=0):
    """Without groups in fields that nobody knows, which protobuf skips and the collector refuses, and without what is in values that lie
    too deep, which is not looked into. Spans of instrumentation libraries are scope spans also where there are others, where the collector
    drops them."""
    known, out = otlp.MESSAGES[message], []
    depth += message == "AnyValue"
    if depth > otlp.VALUE_DEPTH_MAX:
        return b""
    for number, wire_type, value, whole in otlp.fields_of(message, data):
        if number in known and wire_type == otlp.BYTES and known[number].kind not in otlp.WIRE_TYPES:
            inner = usual(known[number].kind, value, depth)
            if inner != value or number == LIBRARIES:
                whole = otlp.delimited(SCOPES if number == LIBRARIES else number, inner)
        if number in known or wire_type != otlp.START:
            out.append(whole)
    return b"".join(out)


SCOPES, LIBRARIES = 2, 1000


def but_for_ids(ask, tree):
    """A wrong id rejects its span and not the request. What the tree does not have, fields of other versions of the protocol, is not looked
    into."""
    content, why = ask("p", otlp.to_protobuf("TracesData", with_empty_ids("TracesData", tree)))
    return Expected(True, why=why) if content is None else of_spans(tree)


def with_empty_ids(message, tree):
    mended = []
    for number, value in tree:
        field = otlp.MESSAGES[message][number]
        if field.kind == "id" and len(value) != ID_BYTES[field.name]:
            value = b""
        elif field.kind not in otlp.WIRE_TYPES:
            value = with_empty_ids(field.kind, value)
        mended.append((number, value))
    return mended


def of_spans(tree):
    traces, rejected, seen, spans, dropped = {}, 0, set(), list(spans_of(tree)), {}
    for span, depth_of_values, has_good_references in zip(spans, depths_of(tree), references_of(tree), strict=True):
        if not has_ids(span) or not has_good_references or depth_of_values > otlp.VALUE_DEPTH_MAX:  # rejected one by one
            rejected += 1
            continue
        kind = span.get("kind", 0)
        identity = (span["traceId"], span["spanId"], kind if kind in range(8) else 0)
        held = traces.setdefault(span["traceId"], [])
        if identity not in seen:  # of spans with the same id and kind the first stays
            seen.add(identity)
            held.append(joined(as_held(span), dropped))
    if rejected and rejected == len(spans):
        return Expected(True, why="no span is left")
    return Expected(False, traces, rejected)


def spans_of(traces):
    """Every span with its resource and scope, by names. Attributes may change their order, and names of services that are empty may
    vanish."""
    for resource_spans in otlp.to_plain("TracesData", traces).get("resourceSpans", []):
        resource = resource_spans.setdefault("resource", {})
        resource["attributes"] = [attribute for attribute in resource.get("attributes", []) if attribute != NO_SERVICE]
        for scope_spans in resource_spans.get("scopeSpans", []):
            for span in scope_spans.get("spans", []):
                span = {**span, "resource": resource, "scope": scope_spans.get("scope", {})}
                for holder in [span, span["resource"], span["scope"], *span.get("events", []), *span.get("links", [])]:
                    if "attributes" in holder:
                        holder["attributes"] = sorted(holder["attributes"], key=text_of)
                yield span


NO_SERVICE = {"key": "service.name", "value": {"stringValue": ""}}


def text_of(plain):
    return json.dumps(plain, sort_keys=True)


def in_order(spans):
    return sorted(spans, key=lambda span: (span["spanId"], span.get("kind", 0), text_of(span)))


def has_ids(span):
    for name in ("traceId", "spanId"):
        if len(span.get(name, "")) != 2 * ID_BYTES[name] or not int(span[name], 16):
            return False
    return True


def references_of(traces):
    """Whether the ids of the parent and of linked spans are as long as they must be, or empty, for every span."""
    for _, resource_spans in traces:
        for scope_spans in (value for number, value in resource_spans if number == 2):
            for span in (value for number, value in scope_spans if number == 2):
                ids = [("parentSpanId", value) for number, value in span if number == 4][-1:]
                for link in (value for number, value in span if number == 13):
                    ids += [(otlp.MESSAGES["Link"][number].name, value) for number, value in link if number in (1, 2)]
                yield all(len(value) in (0, ID_BYTES[name]) for name, value in ids)


def depths_of(traces):
    """How deep values lie within values, for every span with its resource and scope."""
    for _, resource_spans in otlp.in_one_piece("TracesData", traces):
        of_resource = max((depth("Resource", value) for number, value in resource_spans if number == 1), default=0)
        for scope_spans in (value for number, value in resource_spans if number == 2):
            of_scope = max((depth("Scope", value) for number, value in scope_spans if number == 1), default=0)
            yield from (max(of_resource, of_scope, depth("Span", value)) for number, value in scope_spans if number == 2)


def depth(message, tree):
    kinds = ((otlp.MESSAGES[message][number].kind, value) for number, value in tree)
    return (message == "AnyValue") + max((depth(kind, value) for kind, value in kinds if kind not in otlp.WIRE_TYPES), default=0)


def as_held(span):
    """A span as a vParquet4 block holds it, and as answers show it."""
    span = json.loads(json.dumps(span))
    span.pop("flags", None)  # no flags
    for link in span.get("links", []):
        link.pop("flags", None)
    span["resource"].pop("entityRefs", None)  # no references to entities
    if span.get("endTimeUnixNano", 0) < span.get("startTimeUnixNano", 0):  # answers show the start as the end
        span["endTimeUnixNano"] = span["startTimeUnixNano"]
    return span


def joined(span, dropped):
    """Resources with equal attributes are one in a trace, and so are equal scopes in them: the first one's dropped count stays."""
    resource, scope = span["resource"], span["scope"]
    of_resource = (span["traceId"], text_of(resource.get("attributes")))
    of_scope = (*of_resource, text_of({**scope, "droppedAttributesCount": 0}))
    for holder, key in [(resource, of_resource), (scope, of_scope)]:
        holder["droppedAttributesCount"] = dropped.setdefault(key, holder.get("droppedAttributesCount", 0))
        if not holder["droppedAttributesCount"]:
            del holder["droppedAttributesCount"]
    return span


def difference(want, got, path=""):
    """Where two plain things differ first."""
    if isinstance(want, dict) and isinstance(got, dict):
        for name in sorted({*want, *got}):
            if want.get(name) != got.get(name):
                return difference(want.get(name), got.get(name), f"{path}.{name}")
    if isinstance(want, list) and isinstance(got, list) and len(want) == len(got):
        for index, (a, b) in enumerate(zip(want, got, strict=True)):
            if a != b:
                return difference(a, b, f"{path}[{index}]")
    return f"{path} is {got} instead of {want}"
