"""What is stored of the trace that real clients send, in plain Python."""

from base64 import b64decode


def both(query, trace_id):
    """Both spans of a trace by name; none until they are there."""
    answer = query.get(f"/api/v2/traces/{trace_id}")
    assert answer.status == 200, answer
    spans = read(answer.json().get("trace", {}))
    assert {span["trace"] for span in spans.values()} <= {trace_id}
    return spans if spans.keys() == {"POST /order", "charge"} else None


def plain(attributes):
    """Attributes as Python values; each key once."""
    values = [(a["key"], of_value(a["value"])) for a in attributes]
    assert len(dict(values)) == len(values), values
    return dict(values)


def of_value(value):
    ((kind, held),) = value.items()
    if kind == "arrayValue":
        return [of_value(element) for element in held["values"]]
    return {"stringValue": str, "intValue": int, "doubleValue": float, "boolValue": bool}[kind](held)


def read(trace):
    """What there is of each span, by name."""
    found = {}
    for of_resource in trace.get("resourceSpans", []):
        for of_scope in of_resource["scopeSpans"]:
            for span in of_scope["spans"]:
                found[span["name"]] = {
                    "trace": b64decode(span["traceId"]).hex(),
                    "id": span["spanId"],
                    "parent": span.get("parentSpanId"),
                    "kind": span.get("kind", "SPAN_KIND_UNSPECIFIED").removeprefix("SPAN_KIND_"),
                    "micros": (int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"])) / 1000,
                    "resource": plain(of_resource["resource"].get("attributes", [])),
                    "scope": (of_scope["scope"].get("name"), of_scope["scope"].get("version")),
                    "attributes": plain(span.get("attributes", [])),
                    "events": [(event.get("name"), plain(event.get("attributes", []))) for event in span.get("events", [])],
                    "links": [plain(link["attributes"]) for link in span.get("links", [])],
                    "status": (span["status"].get("code", "UNSET").removeprefix("STATUS_CODE_"), span["status"].get("message", "")),
                }
    return found


def checked_family(spans):
    root, child = spans["POST /order"], spans["charge"]
    assert root["parent"] is None and child["parent"] == root["id"]
    assert 0 <= child["micros"] <= root["micros"] < 10_000_000
    return root, child
