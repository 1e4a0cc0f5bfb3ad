//! The fields of OTLP's messages, as JSON names them. Source: `opentelemetry/proto/trace/v1/trace.proto`, `common.proto`.

use std::fmt;

use vivace_core::otlp;

/// A message.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) name: &'static str,
    fields: &'static [Field],
}

/// A field of a message.
#[derive(Debug)]
pub(crate) struct Field {
    /// In lowerCamelCase. The names of the definition, in snake_case, are taken too.
    pub(crate) name: &'static str,
    pub(crate) number: u32,
    pub(crate) kind: Kind,
    pub(crate) is_repeated: bool,
}

/// What a field holds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    String,
    Bool,
    Int64,
    Uint32,
    Fixed32,
    Fixed64,
    Double,
    /// Base64.
    Bytes,
    /// Bytes in hex.
    Id,
    /// Its names, from 0 on.
    Enum(&'static [&'static str]),
    /// A function, since messages contain each other.
    Message(fn() -> &'static Message),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String => f.write_str("a text"),
            Self::Bool => f.write_str("true or false"),
            Self::Int64 | Self::Uint32 | Self::Fixed32 | Self::Fixed64 | Self::Double => f.write_str("a number"),
            Self::Bytes => f.write_str("a text in base64"),
            Self::Id => f.write_str("an id in hex"),
            Self::Enum(names) => write!(f, "a number or one of {}", names.join(", ")),
            Self::Message(message) => f.write_str(message().name),
        }
    }
}

impl Message {
    /// Whether it is an attribute's value, or one within a value.
    pub(crate) fn is_value(&self) -> bool {
        std::ptr::eq(self, &ANY_VALUE)
    }

    /// The field with this name, in either spelling.
    pub(crate) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name || is_snake_case_of(name, field.name))
    }
}

/// Whether a name is another one with `_x` for each `X`.
fn is_snake_case_of(snake: &str, camel: &str) -> bool {
    let mut snake = snake.chars();
    let same = camel.chars().all(|c| match c.is_ascii_uppercase() {
        true => snake.next() == Some('_') && snake.next() == Some(c.to_ascii_lowercase()),
        false => snake.next() == Some(c),
    });
    same && snake.next().is_none()
}

const fn one(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { name, number, kind, is_repeated: false }
}

const fn many(number: u32, name: &'static str, message: fn() -> &'static Message) -> Field {
    Field { name, number, kind: Kind::Message(message), is_repeated: true }
}

const SPAN_KINDS: &[&str] =
    &["SPAN_KIND_UNSPECIFIED", "SPAN_KIND_INTERNAL", "SPAN_KIND_SERVER", "SPAN_KIND_CLIENT", "SPAN_KIND_PRODUCER", "SPAN_KIND_CONSUMER"];
const STATUS_CODES: &[&str] = &["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];

/// A request: `ExportTraceServiceRequest` is the same on the wire.
pub(crate) static TRACES_DATA: Message = Message { name: "TracesData", fields: &[many(1, "resourceSpans", || &RESOURCE_SPANS)] };

static RESOURCE_SPANS: Message = Message {
    name: "ResourceSpans",
    fields: &[
        one(1, "resource", Kind::Message(|| &RESOURCE)),
        many(otlp::SCOPE_SPANS, "scopeSpans", || &SCOPE_SPANS),
        one(3, "schemaUrl", Kind::String),
        many(otlp::INSTRUMENTATION_LIBRARY_SPANS, "instrumentationLibrarySpans", || &INSTRUMENTATION_LIBRARY_SPANS),
    ],
};

static RESOURCE: Message =
    Message { name: "Resource", fields: &[many(1, "attributes", || &KEY_VALUE), one(2, "droppedAttributesCount", Kind::Uint32)] };

static SCOPE_SPANS: Message = Message {
    name: "ScopeSpans",
    fields: &[one(1, "scope", Kind::Message(|| &SCOPE)), many(2, "spans", || &SPAN), one(3, "schemaUrl", Kind::String)],
};

/// What `ScopeSpans` was before OTLP 0.15.
static INSTRUMENTATION_LIBRARY_SPANS: Message = Message {
    name: "InstrumentationLibrarySpans",
    fields: &[one(1, "instrumentationLibrary", Kind::Message(|| &SCOPE)), many(2, "spans", || &SPAN), one(3, "schemaUrl", Kind::String)],
};

static SCOPE: Message = Message {
    name: "InstrumentationScope",
    fields: &[
        one(1, "name", Kind::String),
        one(2, "version", Kind::String),
        many(3, "attributes", || &KEY_VALUE),
        one(4, "droppedAttributesCount", Kind::Uint32),
    ],
};

static SPAN: Message = Message {
    name: "Span",
    fields: &[
        one(1, "traceId", Kind::Id),
        one(2, "spanId", Kind::Id),
        one(3, "traceState", Kind::String),
        one(4, "parentSpanId", Kind::Id),
        one(5, "name", Kind::String),
        one(6, "kind", Kind::Enum(SPAN_KINDS)),
        one(7, "startTimeUnixNano", Kind::Fixed64),
        one(8, "endTimeUnixNano", Kind::Fixed64),
        many(9, "attributes", || &KEY_VALUE),
        one(10, "droppedAttributesCount", Kind::Uint32),
        many(11, "events", || &EVENT),
        one(12, "droppedEventsCount", Kind::Uint32),
        many(13, "links", || &LINK),
        one(14, "droppedLinksCount", Kind::Uint32),
        one(15, "status", Kind::Message(|| &STATUS)),
        one(16, "flags", Kind::Fixed32),
    ],
};

static EVENT: Message = Message {
    name: "Event",
    fields: &[
        one(1, "timeUnixNano", Kind::Fixed64),
        one(2, "name", Kind::String),
        many(3, "attributes", || &KEY_VALUE),
        one(4, "droppedAttributesCount", Kind::Uint32),
    ],
};

static LINK: Message = Message {
    name: "Link",
    fields: &[
        one(1, "traceId", Kind::Id),
        one(2, "spanId", Kind::Id),
        one(3, "traceState", Kind::String),
        many(4, "attributes", || &KEY_VALUE),
        one(5, "droppedAttributesCount", Kind::Uint32),
        one(6, "flags", Kind::Fixed32),
    ],
};

static STATUS: Message = Message { name: "Status", fields: &[one(2, "message", Kind::String), one(3, "code", Kind::Enum(STATUS_CODES))] };

static KEY_VALUE: Message =
    Message { name: "KeyValue", fields: &[one(1, "key", Kind::String), one(2, "value", Kind::Message(|| &ANY_VALUE))] };

static ANY_VALUE: Message = Message {
    name: "AnyValue",
    fields: &[
        one(1, "stringValue", Kind::String),
        one(2, "boolValue", Kind::Bool),
        one(3, "intValue", Kind::Int64),
        one(4, "doubleValue", Kind::Double),
        one(5, "arrayValue", Kind::Message(|| &ARRAY_VALUE)),
        one(6, "kvlistValue", Kind::Message(|| &KEY_VALUE_LIST)),
        one(7, "bytesValue", Kind::Bytes),
    ],
};

static ARRAY_VALUE: Message = Message { name: "ArrayValue", fields: &[many(1, "values", || &ANY_VALUE)] };

static KEY_VALUE_LIST: Message = Message { name: "KeyValueList", fields: &[many(1, "values", || &KEY_VALUE)] };
