"""Makes OTLP requests up: everything that a client may send, and then some of what it must not. The same dice, the same requests."""

import math
import time

from otlp import BYTES, END, FIXED32, FIXED64, MESSAGES, START, VARINT, WIRE_TYPES, Raw, delimited, to_json, to_protobuf, varint

KEYS = [
    "", "a", "b", "service.name", "service.namespace", "k8s.pod.name", "cluster", "namespace", "pod", "container",
    "http.method", "http.url", "http.status_code", "http.route", "ключ", 'q"\\\n',
]  # fmt: skip
TEXTS = [b"", b"a", b"shop", b"GET", "дом 🏠".encode(), b'"\\/\b\f\n\r\t\x00\x1f', b"NaN", b"1" * 300]
NOT_UTF8 = [b"\xff", b"cut \xf0\x9f\x8f", b"a\xed\xa0\xbdb", b"\xc0\x80", b"\xe2\x82 \x80"]
DOUBLES = [0.0, -0.0, 1.0, -1.5, 0.1, 1e300, 5e-324, math.nan, math.inf, -math.inf, 2.0**53 + 2]
INTS = [0, 1, -1, 200, 2**31, 2**53 + 1, 2**63 - 1, -(2**63)]
COUNTS = [0, 1, 77, 2**31 - 1, 2**31, 2**32 - 1]
# Beyond the known ones; of what the wire has for a negative number there are ten bytes.
NUMBERS_OF_ENUMS = [0, 1, 2, 3, 4, 5, 6, 9, 127, -1, 2**31 - 1, -(2**31)]


class Maker:
    """Makes requests of one seed."""

    def __init__(self, dice, bad_text):
        self.dice, self.bad_text, self.now = dice, bad_text, time.time_ns()

    def some(self, probability=0.5):
        return self.dice.random() < probability

    def text(self):
        return self.dice.choice(NOT_UTF8 if self.bad_text and self.some(0.1) else TEXTS)

    def value(self, depth=0):
        """An AnyValue; rarely of no kind."""
        number = self.dice.choice([1, 1, 1, 2, 3, 3, 4, 7, 0] if depth > 2 else [1, 1, 1, 2, 3, 3, 4, 5, 6, 7, 0])
        match number:
            case 0:
                return []
            case 1:
                inner = self.text()
            case 2:
                inner = self.some()
            case 3:
                inner = self.dice.choice(INTS)
            case 4:
                inner = self.dice.choice(DOUBLES)
            case 5 if self.some():  # of one kind, as it mostly is
                kind = self.dice.randrange(4)
                inner = [(1, self.element(kind)) for _ in range(self.dice.randrange(4))]
            case 5:
                inner = [(1, self.value(depth + 1)) for _ in range(self.dice.randrange(4))]
            case 6:
                inner = self.attributes(1, depth + 1)
            case 7:
                inner = self.dice.randbytes(self.dice.randrange(5))
        return [(number, inner)]

    def deep(self):
        """Values within values, as deep as is taken, one deeper, and much deeper."""
        value = [(3, 1)]
        for _ in range(self.dice.choice([23, 24, 60])):
            value = [(5, [(1, value)])] if self.some() else [(6, [(1, [(1, b"k"), (2, value)])])]
        return value

    def element(self, kind):
        return [[(1, self.text())], [(2, self.some())], [(3, self.dice.choice(INTS))], [(4, self.dice.choice(DOUBLES))]][kind]

    def attributes(self, number, depth=0):
        made = []
        for _ in range(self.dice.choice([0, 0, 1, 2, 5])):
            attribute = [(1, self.dice.choice(KEYS).encode())]
            if self.some(0.95):
                attribute.append((2, self.deep() if not depth and self.some(0.01) else self.value(depth)))
            made.append((number, attribute))
        return made

    def time(self):
        return self.dice.choice([self.now, self.now, self.now + 10**9, 0, 1, 2**63 - 1, 2**63, 2**64 - 1])

    def id(self, length):
        """An id that is one, or of another length, or of zeros."""
        if self.some(0.02):
            return self.dice.choice([b"", bytes(length), self.dice.randbytes(3), self.dice.randbytes(length + 1)])
        return self.dice.randbytes(length)

    def sometimes(self, number, value):
        return [(number, value)] if self.some(0.6) else []

    def event(self):
        return self.sometimes(1, self.time()) + self.sometimes(2, self.text()) + self.attributes(3) + self.sometimes(4, self.count())

    def link(self):
        ids = self.sometimes(1, self.id(16)) + self.sometimes(2, self.id(8))
        return ids + self.sometimes(3, self.text()) + self.attributes(4) + self.sometimes(5, self.count()) + self.sometimes(6, self.count())

    def count(self):
        return self.dice.choice(COUNTS)

    def status(self):
        return self.sometimes(2, self.text()) + self.sometimes(3, self.dice.choice(NUMBERS_OF_ENUMS))

    def span(self, trace_id):
        fields = [(1, trace_id if self.some(0.98) else self.id(16)), (2, self.id(8))]
        fields += self.sometimes(3, self.text()) + self.sometimes(4, self.id(8)) + self.sometimes(5, self.text())
        fields += self.sometimes(6, self.dice.choice(NUMBERS_OF_ENUMS)) + self.sometimes(7, self.time()) + self.sometimes(8, self.time())
        fields += self.attributes(9) + self.sometimes(10, self.count())
        fields += [(11, self.event()) for _ in range(self.dice.choice([0, 0, 1, 2]))] + self.sometimes(12, self.count())
        fields += [(13, self.link()) for _ in range(self.dice.choice([0, 0, 1, 2]))] + self.sometimes(14, self.count())
        fields += self.sometimes(15, self.status()) + self.sometimes(16, self.count())
        if self.some(0.2):
            self.dice.shuffle(fields)
        return fields

    def scope_spans(self, trace_ids):
        """Also what they were before: spans of an instrumentation library."""
        scope = self.sometimes(1, self.text()) + self.sometimes(2, self.text()) + self.attributes(3) + self.sometimes(4, self.count())
        spans = [(2, self.span(self.dice.choice(trace_ids))) for _ in range(self.dice.choice([0, 1, 1, 2, 4]))]
        return self.sometimes(1, scope) + spans + self.sometimes(3, self.text())

    def resource_spans(self, trace_ids):
        resource = self.attributes(1) + self.sometimes(2, self.count())
        if self.some(0.1):
            resource.append((3, [(2, b"service"), (3, b"service.name")]))
        scopes = [(1000 if self.some(0.05) else 2, self.scope_spans(trace_ids)) for _ in range(self.dice.choice([0, 1, 1, 2]))]
        return self.sometimes(1, resource) + scopes + self.sometimes(3, self.text())

    def request(self):
        trace_ids = [self.dice.randbytes(16) for _ in range(self.dice.choice([1, 1, 2]))]
        return [(1, self.resource_spans(trace_ids)) for _ in range(self.dice.choice([1, 1, 1, 2, 3, 0]))]


def messages_of(message, tree):
    """The name and fields of a message and of all within."""
    yield message, tree
    for number, value in tree:
        kind = None if isinstance(value, Raw) else MESSAGES[message][number].kind
        if kind and kind not in WIRE_TYPES:
            yield from messages_of(kind, value)


def raw_field(dice, number):
    """A field of any wire type, groups among them."""
    match dice.choice([VARINT, FIXED64, BYTES, START, END, FIXED32, 6]):
        case 0:
            return varint(number << 3) + varint(dice.choice([0, 1, 300, 2**64 - 1]))
        case 1:
            return varint(number << 3 | FIXED64) + dice.randbytes(8)
        case 2:
            return delimited(number, dice.choice([b"", b"\x08\x01", b"text", dice.randbytes(20)]))
        case 3:
            return varint(number << 3 | START) + b"\x08\x01" + varint(number << 3 | END)
        case 5:
            return varint(number << 3 | FIXED32) + dice.randbytes(4)
        case other:
            return varint(number << 3 | other)


def in_pieces(dice, tree):
    """Resources, scopes, values or status twice in their message, with other content."""
    name = dice.choice(["ResourceSpans", "ScopeSpans", "KeyValue", "Span"])
    number = {"ResourceSpans": 1, "ScopeSpans": 1, "KeyValue": 2, "Span": 15}[name]
    donors = [fields for n, fields in messages_of("TracesData", Maker(dice, False).request()) if n == name]
    others = [field for fields in donors for field in fields if field[0] == number]
    for fields in [fields for n, fields in messages_of("TracesData", tree) if n == name]:
        if others and dice.random() < 0.5:
            fields.insert(dice.randint(0, len(fields)), dice.choice(others))


def protobuf(dice):
    """A request in protobuf, in half of the cases changed in one way."""
    tree = Maker(dice, bad_text=True).request()
    name, fields = dice.choice(list(messages_of("TracesData", tree)))
    match dice.randrange(12):
        case 0:  # a field that nobody knows, or one of another wire type than it has
            number = dice.choice([*MESSAGES[name], 17, 99, 1000, 2**29 - 1])
            fields.insert(dice.randint(0, len(fields)), (number, Raw(raw_field(dice, number))))
        case 1 if fields:  # the same twice
            fields.insert(dice.randint(0, len(fields)), dice.choice(fields))
        case 6:  # a message that stands once, in pieces
            in_pieces(dice, tree)
        case 2 if fields:  # two of one field, with different content
            other = next((m for n, m in messages_of("TracesData", Maker(dice, False).request()) if n == name), [])
            fields[dice.randint(0, len(fields)) :] = other
        case 3:
            body = to_protobuf("TracesData", tree)
            return body[: dice.randint(0, len(body))]
        case 4 | 5:
            body = bytearray(to_protobuf("TracesData", tree))
            if body:
                body[dice.randrange(len(body))] = dice.randrange(256)
            return bytes(body)
    return to_protobuf("TracesData", tree)


# What may stand in the place of any value.
STRANGE_JSON = [
    b"null", b"true", b"false", b"{}", b"[]", b"[null]", b"[{}]", b"[[]]", b'{"a":[1,{"b":null}]}',
    b"0", b"-1", b"1.5", b"7.0", b"1e3", b"01", b"99999999999999999999", b'"7"', b'"7.0"', b'"NaN"',
    b'""', b'"text"', b'"\\ud83d"', b'"\\ud83d\\ude00"', b'"\\udc00\\ud800x"', b'"a\xff"',
]  # fmt: skip


def json_request(dice):
    """A request in JSON, in half of the cases changed in one way."""
    tree = Maker(dice, bad_text=dice.random() < 0.5).request()
    name, fields = dice.choice(list(messages_of("TracesData", tree)))
    match dice.randrange(12):
        case 0:  # a field that nobody knows
            fields.insert(dice.randint(0, len(fields)), (0, Raw(b'"new":' + dice.choice(STRANGE_JSON))))
        case 1 | 2 | 3:  # anything in any field
            number = dice.choice([*MESSAGES[name]])
            fields[:] = [field for field in fields if field[0] != number]
            member = b'"%s":%s' % (MESSAGES[name][number].name.encode(), dice.choice(STRANGE_JSON))
            fields.insert(dice.randint(0, len(fields)), (0, Raw(member)))
        case 4:
            body = to_json("TracesData", tree, dice)
            return body[: dice.randint(0, len(body))]
        case 5 | 6:
            body = bytearray(to_json("TracesData", tree, dice))
            body[dice.randrange(len(body))] = dice.randrange(256)
            return bytes(body)
    return to_json("TracesData", tree, dice)
