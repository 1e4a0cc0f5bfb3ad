"""The messages of OTLP traces as trees that can hold whatever a client may send: written as protobuf and as JSON, read from protobuf.

A message is a list of fields in their order on the wire, each a number and a value. A message's value is again a list; texts are bytes,
since not every client sends UTF-8. A `Raw` stands for the bytes of one or more whole fields.
Source: OpenTelemetry protocol, `trace.proto`, `resource.proto`, `common.proto`.
"""

import base64
import json
import math
import re
import struct
from collections import namedtuple

Field = namedtuple("Field", "name kind many", defaults=[False])
Raw = namedtuple("Raw", "bytes")

# How deep values may lie within values.
VALUE_DEPTH_MAX = 24

VARINT, FIXED64, BYTES, START, END, FIXED32 = range(6)
WIRE_TYPES = {
    "bool": VARINT, "int64": VARINT, "uint32": VARINT, "kind": VARINT, "code": VARINT,
    "fixed64": FIXED64, "double": FIXED64, "fixed32": FIXED32, "text": BYTES, "bytes": BYTES, "id": BYTES,
}  # fmt: skip
ENUMS = {
    "kind": ["SPAN_KIND_" + name for name in ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")],
    "code": ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"],
}
ATTRIBUTES, DROPPED = Field("attributes", "KeyValue", True), Field("droppedAttributesCount", "uint32")
MESSAGES = {
    "TraceByIdResponse": {1: Field("trace", "TracesData")},
    "TracesData": {1: Field("resourceSpans", "ResourceSpans", True)},
    "ResourceSpans": {
        1: Field("resource", "Resource"),
        2: Field("scopeSpans", "ScopeSpans", True),
        3: Field("schemaUrl", "text"),
        1000: Field("instrumentationLibrarySpans", "InstrumentationLibrarySpans", True),
    },
    "Resource": {1: ATTRIBUTES, 2: DROPPED, 3: Field("entityRefs", "EntityRef", True)},
    "EntityRef": {
        1: Field("schemaUrl", "text"),
        2: Field("type", "text"),
        3: Field("idKeys", "text", True),
        4: Field("descriptionKeys", "text", True),
    },
    "ScopeSpans": {1: Field("scope", "Scope"), 2: Field("spans", "Span", True), 3: Field("schemaUrl", "text")},
    "InstrumentationLibrarySpans": {
        1: Field("instrumentationLibrary", "Scope"),
        2: Field("spans", "Span", True),
        3: Field("schemaUrl", "text"),
    },
    "Scope": {1: Field("name", "text"), 2: Field("version", "text"), 3: ATTRIBUTES, 4: DROPPED},
    "Span": {
        1: Field("traceId", "id"),
        2: Field("spanId", "id"),
        3: Field("traceState", "text"),
        4: Field("parentSpanId", "id"),
        5: Field("name", "text"),
        6: Field("kind", "kind"),
        7: Field("startTimeUnixNano", "fixed64"),
        8: Field("endTimeUnixNano", "fixed64"),
        9: ATTRIBUTES,
        10: DROPPED,
        11: Field("events", "Event", True),
        12: Field("droppedEventsCount", "uint32"),
        13: Field("links", "Link", True),
        14: Field("droppedLinksCount", "uint32"),
        15: Field("status", "Status"),
        16: Field("flags", "fixed32"),
    },
    "Event": {1: Field("timeUnixNano", "fixed64"), 2: Field("name", "text"), 3: ATTRIBUTES, 4: DROPPED},
    "Link": {
        1: Field("traceId", "id"),
        2: Field("spanId", "id"),
        3: Field("traceState", "text"),
        4: ATTRIBUTES,
        5: DROPPED,
        6: Field("flags", "fixed32"),
    },
    "Status": {2: Field("message", "text"), 3: Field("code", "code")},
    "KeyValue": {1: Field("key", "text"), 2: Field("value", "AnyValue")},
    "AnyValue": {
        1: Field("stringValue", "text"),
        2: Field("boolValue", "bool"),
        3: Field("intValue", "int64"),
        4: Field("doubleValue", "double"),
        5: Field("arrayValue", "ArrayValue"),
        6: Field("kvlistValue", "KeyValueList"),
        7: Field("bytesValue", "bytes"),
    },
    "ArrayValue": {1: Field("values", "AnyValue", True)},
    "KeyValueList": {1: Field("values", "KeyValue", True)},
}


def varint(value):
    out, value = bytearray(), value % 2**64
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def delimited(number, content):
    return varint(number << 3 | BYTES) + varint(len(content)) + content


def to_protobuf(message, tree):
    out = []
    for number, value in tree:
        if isinstance(value, Raw):
            out.append(value.bytes)
            continue
        kind = MESSAGES[message][number].kind
        wire_type = WIRE_TYPES.get(kind, BYTES)
        if wire_type == BYTES:
            out.append(delimited(number, value if kind in WIRE_TYPES else to_protobuf(kind, value)))
            continue
        form = {"double": "<d", "fixed64": "<Q", "fixed32": "<I"}.get(kind)
        out.append(varint(number << 3 | wire_type) + (struct.pack(form, value) if form else varint(value)))
    return b"".join(out)


class Malformed(Exception):
    """The bytes are no such message."""


def fields_of(message, data):
    """Number, wire type, value, and all bytes of each field. Of a group the value is None."""
    at = 0

    def number_at(at):
        value = shift = 0
        while True:
            if at >= len(data) or shift > 63:
                raise Malformed(f"a number at byte {at} of {message}")
            value |= (data[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if data[at - 1] < 0x80:
                return value % 2**64, at

    def value_at(at, wire_type):
        if wire_type == VARINT:
            return number_at(at)
        if wire_type not in (FIXED64, FIXED32, BYTES):
            raise Malformed(f"wire type {wire_type} in {message}")
        length, at = number_at(at) if wire_type == BYTES else (8 if wire_type == FIXED64 else 4, at)
        if at + length > len(data):
            raise Malformed(f"{message} ends in a field")
        return data[at : at + length], at + length

    while at < len(data):
        start, open_groups = at, []
        while True:
            key, at = number_at(at)
            number, wire_type, value = key >> 3, key & 7, None
            if not number:
                raise Malformed(f"field {number} of {message}")
            if wire_type == START:
                open_groups.append(number)
            elif wire_type == END:
                if not open_groups or open_groups.pop() != number:
                    raise Malformed(f"end of group {number} in {message}")
            else:
                value, at = value_at(at, wire_type)
            if not open_groups:
                break
        yield number, START if wire_type == END else wire_type, value, data[start:at]


def from_protobuf(message, data):
    """The tree. Fields that are not known are left out."""
    tree = []
    for number, wire_type, value, _ in fields_of(message, data):
        field = MESSAGES[message].get(number)
        if field and WIRE_TYPES.get(field.kind, BYTES) != wire_type:
            raise Malformed(f"wire type {wire_type} of {field.name} in {message}")
        if field:
            tree.append((number, of_wire(field.kind, value)))
    return tree


def of_wire(kind, value):
    match kind:
        case "double":
            return struct.unpack("<d", value)[0]
        case "fixed64" | "fixed32":
            return int.from_bytes(value, "little")
        case "bool":
            return value != 0
        case "uint32":
            return value % 2**32
        case "int64":
            return (value + 2**63) % 2**64 - 2**63
        case "kind" | "code":
            return (value + 2**31) % 2**32 - 2**31
        case "text" | "bytes" | "id":
            return value
        case _:
            return from_protobuf(kind, value)


def to_plain(message, tree):
    """The content of a message by names: texts as texts, broken ones with one U+FFFD for the break, doubles by their bits, no field that
    has its default."""
    plain = {}
    for number, value in merged(message, tree):
        field = MESSAGES[message][number]
        match field.kind:
            case "text":
                value = re.sub("\ufffd+", "\ufffd", value.decode("utf-8", "replace"))
            case "bytes":
                value = value.hex()
            case "id":  # one of zeros is none
                value = value.hex() if any(value) else ""
            case "double":
                value = "NaN" if math.isnan(value) else float.hex(value)
            case kind if kind not in WIRE_TYPES:
                value = to_plain(kind, value)
        if field.many:
            plain.setdefault(field.name, []).append(value)
        elif value or message == "AnyValue":
            plain[field.name] = value
        else:
            plain.pop(field.name, None)
    return plain


def merged(message, tree):
    """The fields without those that others take the place of: messages of one field are joined, of all else the last counts."""
    if message == "AnyValue":
        return tree[-1:]
    last = {}
    for number, value in tree:
        field = MESSAGES[message][number]
        if field.many:
            last.setdefault((number, len(last)), value)
        elif field.kind in WIRE_TYPES:
            last[number] = value
        else:
            last[number] = [*last.get(number, []), *value]
    return [(key[0] if isinstance(key, tuple) else key, value) for key, value in last.items()]


def in_one_piece(message, tree):
    """The same, also of all messages in it."""
    kinds = MESSAGES[message]
    return [
        (number, value if kinds[number].kind in WIRE_TYPES else in_one_piece(kinds[number].kind, value))
        for number, value in merged(message, tree)
    ]


def to_json(message, tree, dice):
    """JSON as bytes, each thing in one of the forms that it may have. Texts stay the bytes that they are."""
    members, lists = [], {}
    for number, value in tree:
        if isinstance(value, Raw):
            members.append(value.bytes)
            continue
        field = MESSAGES[message][number]
        value = json_value(field.kind, value, dice)
        if field.many:
            lists.setdefault(number, []).append(value)
        else:
            members.append(json_name(field.name, dice) + b":" + value)
    members += [json_name(MESSAGES[message][number].name, dice) + b":[" + b",".join(values) + b"]" for number, values in lists.items()]
    return b"{" + b",".join(members) + b"}"


def json_name(name, dice):
    if dice.random() < 0.2:
        name = "".join("_" + c.lower() if c.isupper() else c for c in name)
    return json.dumps(name).encode()


def json_value(kind, value, dice):
    quoted = dice.random() < 0.5
    match kind:
        case "text":
            try:
                return json.dumps(value.decode(), ensure_ascii=quoted).encode()
            except UnicodeDecodeError:
                return b'"' + b"".join(bytes([c]) if c >= 0x20 and c not in b'"\\' else b"\\u%04x" % c for c in value) + b'"'
        case "id":
            return json.dumps(value.hex().upper() if quoted else value.hex()).encode()
        case "bytes":
            return json.dumps(base64.b64encode(value).decode()).encode()
        case "bool":
            return b"true" if value else b"false"
        case "double":
            name = {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN" if math.isnan(value) else None)
            return json.dumps(name or (repr(value) if quoted else value)).encode()
        case "kind" | "code" if quoted and 0 <= value < len(ENUMS[kind]):
            return json.dumps(ENUMS[kind][value]).encode()
        case "kind" | "code":
            return str(value).encode()
        case _ if kind in WIRE_TYPES:
            return b'"%d"' % value if quoted else b"%d" % value
        case _:
            return to_json(kind, value, dice)
