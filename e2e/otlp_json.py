"""Puts OTLP in JSON into the one form of it that the OpenTelemetry Collector and Vivace read alike.

The collector's reader of JSON is laxer than JSON (what follows the object, broken texts and names), and stricter than protobuf's JSON
mapping, of which Vivace takes all: null stands for a field that is not there, whole numbers may have a fraction of zero or an exponent,
bytes may be in base64 for URLs. Where the mapping is silent, Vivace takes enums as text too, and the spans of instrumentation libraries,
as scope spans were called before OTLP 0.15.
"""

import base64
import binascii
import json
import math
import re

import otlp


class Refused(Exception):
    """Not JSON, or nothing that the mapping allows."""


def strict(body):
    """The request in that form: names in lowerCamelCase, 64-bit numbers as texts, enums as numbers."""
    try:
        text = body.decode("utf-8", "surrogateescape")
        text = re.sub(r'"(?:[^"\\]|\\.)*"', lambda quoted: re.sub("[\x00-\x1f]", marked, quoted[0]), text, flags=re.DOTALL)
        value = json.loads(text, object_pairs_hook=Members, parse_constant=no_json, parse_float=Number, parse_int=Number)
    except (ValueError, RecursionError) as error:
        raise Refused(f"no JSON: {error}") from None
    return message(value, "TracesData")


# Halves of pairs, and what Python makes of bytes that are no UTF-8.
SURROGATES = "[\ud800-\udfff]"
# Control characters that were not escaped are no JSON. In texts that are kept they are taken nevertheless.
MARKED = "[\ue000-\ue01f]"


def marked(control):
    return chr(ord(control[0]) + 0xE000)


def texts_of(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from texts_of(inner)


class Members(list):
    """An object: names and values in their order."""


class Number(str):
    """A number as it is written."""


def no_json(name):
    raise ValueError(f"{name} is no JSON")


def message(value, name, depth=0):
    """`depth`: values that it lies in. What lies too deep is not looked into."""
    depth += name == "AnyValue"
    if not isinstance(value, Members):
        raise Refused(f"{name} is no object")
    by_name = {spelling: field for field in otlp.MESSAGES[name].values() for spelling in (field.name, snake(field.name))}
    plain = {}
    for key, member in value:
        field = by_name.get(key)
        is_kept = field is not None and field.kind != "EntityRef" and depth <= otlp.VALUE_DEPTH_MAX
        if re.search(SURROGATES, key) or any(re.search(MARKED, text) for text in ([key] if is_kept else texts_of((key, member)))):
            raise Refused(f"{key!r} or what it has is no JSON")
        if member is None or not is_kept:
            continue
        if field.many:
            if isinstance(member, Members) or not isinstance(member, list):
                raise Refused(f"{key} is no list")
            plain.setdefault(field.name, []).extend({} if element is None else of_kind(element, field, depth) for element in member)
        else:
            if name == "AnyValue":
                plain.clear()  # the last one counts
            plain[field.name] = of_kind(member, field, depth)
    if name == "ResourceSpans":
        libraries = plain.pop("instrumentationLibrarySpans", [])
        scopes = [{LIBRARY.get(key, key): value for key, value in library.items()} for library in libraries]
        plain["scopeSpans"] = plain.get("scopeSpans", []) + scopes
    return plain


LIBRARY = {"instrumentationLibrary": "scope"}


def tree(plain, name):
    """The message that such a form stands for."""
    fields = []
    for number, field in otlp.MESSAGES[name].items():
        if field.name in plain:
            values = plain[field.name] if field.many else [plain[field.name]]
            fields += [(number, of_plain(value, field.kind)) for value in values]
    return fields


def of_plain(value, kind):
    match kind:
        case "text":
            return value.encode()
        case "id":
            return bytes.fromhex(value)
        case "bytes":
            return base64.b64decode(value)
        case "double":
            return float(value)
        case "bool" | "kind" | "code":
            return value
        case _:
            return int(value) if kind in otlp.WIRE_TYPES else tree(value, kind)


def snake(name):
    return re.sub("[A-Z]", lambda upper: "_" + upper[0].lower(), name)


BITS = {"uint32": (0, 2**32), "fixed32": (0, 2**32), "fixed64": (0, 2**64), "int64": (-(2**63), 2**63), "kind": (-(2**31), 2**31)}
BITS["code"] = BITS["kind"]


def of_kind(value, field, depth):
    kind, is_text = field.kind, isinstance(value, str) and not isinstance(value, Number)
    if kind not in otlp.WIRE_TYPES:
        return message(value, kind, depth)
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind == "text" and is_text:
        return re.sub(MARKED, lambda mark: chr(ord(mark[0]) - 0xE000), re.sub(SURROGATES, "\ufffd", value))
    if kind == "id" and is_text:
        return in_hex(value, field)
    if kind == "bytes" and is_text:
        return in_base64(value)
    if kind in otlp.ENUMS and is_text and value in otlp.ENUMS[kind]:
        return otlp.ENUMS[kind].index(value)
    if isinstance(value, str) and kind in BITS:
        if kind in otlp.ENUMS and is_text and not re.fullmatch(r"[+-]?\d+", value):
            raise Refused(f"{field.name}: {value!r} is no {kind}")
        number = whole(value)
        low, high = BITS[kind]
        if not low <= number < high:
            raise Refused(f"{field.name}: {value} is out of range")
        return number if kind in otlp.ENUMS else str(number)
    if isinstance(value, str) and kind == "double":
        return double(value)
    raise Refused(f"{field.name}: {value!r} is no {kind}")


def in_hex(text, field):
    try:
        return binascii.unhexlify(text).hex()
    except ValueError as error:
        raise Refused(f"{field.name}: {error}") from None


def in_base64(text):
    try:
        plain = text.replace("-", "+").replace("_", "/").rstrip("=")
        return base64.b64encode(base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)).decode()
    except ValueError as error:
        raise Refused(f"bytes: {error}") from None


def whole(text):
    try:
        return int(text) if re.fullmatch(r"[+-]?\d+", text) else whole_double(text)
    except ValueError:
        raise Refused(f"{text!r} is no number") from None


def whole_double(text):
    number = double_of(text)
    if not math.isfinite(number) or number != int(number):
        raise Refused(f"{text!r} is no whole number")
    return int(number)


def double_of(text):
    if re.search(r"[\s_]", text):  # Python would take these
        raise Refused(f"{text!r} is no number")
    try:
        return float(text)
    except ValueError:
        raise Refused(f"{text!r} is no number") from None


def double(text):
    number = double_of(text)
    return number if math.isfinite(number) else {math.inf: "Infinity", -math.inf: "-Infinity"}.get(number, "NaN")
