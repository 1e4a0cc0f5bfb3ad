//! The spans of the worked examples, and a batch of them for any fetch.

use std::sync::Arc;

use vivace_traceql::{
    Attribute, Batch, ChildRows, Condition, Fetch, Intrinsic, Kind, Scope, ServiceStat, SpanFilter, SpanRow, Status, TraceFilter, TraceRow,
    Value,
};

pub(crate) const MS: u64 = 1_000_000;
/// All times are relative to this.
pub(crate) const BASE: u64 = 1_700_000_000_000_000_000;

pub(crate) type Attributes = Vec<(&'static str, Value)>;

#[derive(Clone)]
pub(crate) struct Span {
    pub(crate) name: &'static str,
    pub(crate) id: u64,
    pub(crate) parent: u64,
    pub(crate) service: &'static str,
    pub(crate) kind: Kind,
    pub(crate) status: (Status, &'static str),
    pub(crate) start_ms: u64,
    pub(crate) duration_ms: u64,
    pub(crate) attributes: Attributes,
    pub(crate) resource: Attributes,
    pub(crate) events: Vec<(&'static str, u64, Attributes)>,
    pub(crate) links: Vec<(&'static str, &'static str, Attributes)>,
    pub(crate) scope: (&'static str, &'static str, Attributes),
    pub(crate) nested: (i32, i32, i32),
    pub(crate) children: i32,
    pub(crate) resource_number: u32,
}

pub(crate) struct Trace {
    pub(crate) id: &'static str,
    pub(crate) root: (&'static str, &'static str),
    pub(crate) spans: Vec<Span>,
}

pub(crate) fn text(text: &str) -> Value {
    Value::Str(text.into())
}

fn span(name: &'static str, id: u64, parent: u64, service: &'static str, start_ms: u64, duration_ms: u64, nested: (i32, i32, i32)) -> Span {
    Span {
        name,
        id,
        parent,
        service,
        kind: Kind::Unspecified,
        status: (Status::Unset, ""),
        start_ms,
        duration_ms,
        attributes: Vec::new(),
        resource: Vec::new(),
        events: Vec::new(),
        links: Vec::new(),
        scope: ("", "", Vec::new()),
        nested,
        children: 0,
        resource_number: 0,
    }
}

/// The three traces of the worked examples. Source: docs/facts/traceql.md, "Worked examples".
pub(crate) fn traces() -> Vec<Trace> {
    const A: u64 = 0xa100_0000_0000_0000;
    const B: u64 = 0xb200_0000_0000_0000;
    const C: u64 = 0xc300_0000_0000_0000;
    let us = || vec![("region", text("us")), ("tier", text("prod"))];
    let eu = || vec![("region", text("eu"))];
    let first = vec![
        Span {
            kind: Kind::Server,
            status: (Status::Ok, ""),
            attributes: vec![("http.status_code", Value::Int(200)), ("tier", text("gold")), ("retry", Value::Bool(false))],
            resource: eu(),
            children: 2,
            ..span("A", A + 1, 0, "gateway", 0, 300, (1, 10, -1))
        },
        Span {
            kind: Kind::Client,
            attributes: vec![
                ("items", Value::Int(3)),
                ("price", Value::Float(19.5)),
                ("tags", Value::StrArray(Arc::new([Arc::from("a"), Arc::from("b")]))),
            ],
            resource: eu(),
            resource_number: 1,
            ..span("B", A + 2, A + 1, "cart", 10, 50, (2, 3, 1))
        },
        Span {
            kind: Kind::Client,
            status: (Status::Error, "card declined"),
            attributes: vec![("amount", Value::Int(120)), ("currency", text("EUR")), ("tier", text("silver"))],
            resource: us(),
            events: vec![
                ("exception", 100, vec![("type", text("CardError")), ("code", Value::Int(7))]),
                ("retry", 120, vec![("code", Value::Int(9))]),
            ],
            children: 2,
            resource_number: 2,
            ..span("C", A + 3, A + 1, "payment", 80, 150, (4, 9, 1))
        },
        Span {
            kind: Kind::Client,
            status: (Status::Ok, ""),
            attributes: vec![("rows", Value::Int(0)), ("db", text("pg"))],
            resource: us(),
            links: vec![("2b00000000000000000000000000000002", "b200000000000001", vec![("why", text("batch"))])],
            resource_number: 2,
            ..span("D", A + 4, A + 3, "payment", 100, 40, (5, 6, 4))
        },
        Span {
            kind: Kind::Server,
            status: (Status::Error, ""),
            attributes: vec![("amount", Value::Float(120.5)), ("currency", text("EUR"))],
            scope: ("otel-x", "1.2", vec![("lang", text("rust"))]),
            resource_number: 3,
            ..span("E", A + 5, A + 3, "bank", 150, 60, (7, 8, 4))
        },
    ];
    let second = vec![
        Span {
            kind: Kind::Consumer,
            attributes: vec![("n", Value::Int(5)), ("queue", text("jobs"))],
            children: 2,
            ..span("F", B + 1, 0, "worker", 5000, 2000, (1, 8, -1))
        },
        Span { attributes: vec![("n", Value::Int(7))], ..span("G", B + 2, B + 1, "worker", 5100, 500, (2, 3, 1)) },
        Span { attributes: vec![("n", Value::Int(-3))], children: 1, ..span("H", B + 3, B + 1, "worker", 5700, 700, (4, 7, 1)) },
        span("I", B + 4, B + 3, "worker", 5800, 0, (5, 6, 4)),
    ];
    let third = vec![
        Span {
            status: (Status::Error, ""),
            attributes: vec![("items", text("3"))],
            ..span("J", C + 1, C + 9, "cart", 9000, 20, (0, 0, 0))
        },
        Span { attributes: vec![("items", Value::Int(4))], ..span("K", C + 2, C + 1, "cart", 9005, 10, (0, 0, 0)) },
    ];
    vec![
        Trace { id: "1a", root: ("A", "gateway"), spans: first },
        Trace { id: "2b", root: ("F", "worker"), spans: second },
        Trace { id: "3c", root: ("", ""), spans: third },
    ]
}

fn of(attributes: &Attributes, key: &str) -> Value {
    attributes.iter().find(|(name, _)| *name == key).map_or(Value::Nil, |(_, value)| value.clone())
}

impl Trace {
    pub(crate) fn start(&self) -> u64 {
        BASE + self.spans.iter().map(|s| s.start_ms).min().unwrap_or(0) * MS
    }

    pub(crate) fn end(&self) -> u64 {
        BASE + self.spans.iter().map(|s| s.start_ms + s.duration_ms).max().unwrap_or(0) * MS
    }

    /// The values of an attribute: one, or one per event or link.
    fn values(&self, span: &Span, attribute: &Attribute) -> Vec<Value> {
        let duration = |ms: u64| Value::Duration(i64::try_from(ms * MS).expect("short"));
        let Attribute::Intrinsic(intrinsic) = attribute else {
            let Attribute::Named { scope, key } = attribute else { unreachable!("two kinds of attributes") };
            let resource = || if &**key == "service.name" { text(span.service) } else { of(&span.resource, key) };
            return match scope {
                Scope::Span => vec![of(&span.attributes, key)],
                Scope::Resource => vec![resource()],
                Scope::Unscoped => vec![match of(&span.attributes, key) {
                    Value::Nil => resource(),
                    value => value,
                }],
                Scope::Instrumentation => vec![of(&span.scope.2, key)],
                Scope::Event => span.events.iter().map(|e| of(&e.2, key)).collect(),
                Scope::Link => span.links.iter().map(|l| of(&l.2, key)).collect(),
            };
        };
        match intrinsic {
            Intrinsic::EventName => return span.events.iter().map(|e| text(e.0)).collect(),
            Intrinsic::EventTimeSinceStart => return span.events.iter().map(|e| duration(e.1)).collect(),
            Intrinsic::LinkTraceId => return span.links.iter().map(|l| text(l.0)).collect(),
            Intrinsic::LinkSpanId => return span.links.iter().map(|l| text(l.1)).collect(),
            _ => {}
        }
        vec![match intrinsic {
            Intrinsic::Name => text(span.name),
            Intrinsic::Duration => duration(span.duration_ms),
            Intrinsic::Status => Value::Status(span.status.0),
            Intrinsic::StatusMessage => text(span.status.1),
            Intrinsic::Kind => Value::Kind(span.kind),
            Intrinsic::SpanId => text(&format!("{:016x}", span.id)),
            Intrinsic::ParentId => text(&format!("{:016x}", span.parent)),
            Intrinsic::ChildCount => Value::Int(span.children.into()),
            Intrinsic::TraceId => text(self.id),
            Intrinsic::TraceDuration => duration((self.end() - self.start()) / MS),
            Intrinsic::RootName => text(self.root.0),
            Intrinsic::RootService => text(self.root.1),
            Intrinsic::ScopeName => text(span.scope.0),
            Intrinsic::ScopeVersion => text(span.scope.1),
            Intrinsic::NestedSetLeft => Value::Int(span.nested.0.into()),
            Intrinsic::NestedSetRight => Value::Int(span.nested.1.into()),
            Intrinsic::NestedSetParent => Value::Int(span.nested.2.into()),
            _ => Value::Nil,
        }]
    }

    /// Storage's view of the filter: exact where it decides.
    pub(crate) fn passes(&self, filter: &TraceFilter) -> bool {
        match filter {
            TraceFilter::All => true,
            TraceFilter::Nothing => false,
            TraceFilter::AnySpan(filter) => self.spans.iter().any(|span| self.span_passes(span, filter)),
            TraceFilter::And(filters) => filters.iter().all(|f| self.passes(f)),
            TraceFilter::Or(filters) => filters.iter().any(|f| self.passes(f)),
        }
    }

    fn span_passes(&self, span: &Span, filter: &SpanFilter) -> bool {
        match filter {
            SpanFilter::Maybe => true,
            SpanFilter::Leaf(Condition { attribute, comparison }) => self.values(span, attribute).iter().any(|v| comparison.matches(v)),
            SpanFilter::And(filters) => filters.iter().all(|f| self.span_passes(span, f)),
            SpanFilter::Or(filters) => filters.iter().any(|f| self.span_passes(span, f)),
        }
    }
}

/// The traces with the columns that are asked for.
pub(crate) fn batch(traces: &[Trace], fetch: &Fetch) -> Batch {
    let mut batch = Batch { columns: vec![Vec::new(); fetch.span_attributes.len()], ..Batch::default() };
    let fill = |attributes: &[Attribute]| {
        let mut rows = ChildRows { offsets: Vec::new(), columns: vec![Vec::new(); attributes.len()] };
        if !attributes.is_empty() {
            rows.offsets.push(0);
        }
        rows
    };
    (batch.events, batch.links) = (fill(&fetch.event_attributes), fill(&fetch.link_attributes));
    for trace in traces {
        let first = batch.spans.len();
        let mut services: Vec<ServiceStat> = Vec::new();
        for span in &trace.spans {
            batch.spans.push(SpanRow {
                id: vivace_core::SpanId(span.id.to_be_bytes()),
                start_unix_nanos: BASE + span.start_ms * MS,
                duration_nanos: span.duration_ms * MS,
                nested_set_left: span.nested.0,
                nested_set_right: span.nested.1,
                nested_set_parent: span.nested.2,
                child_count: span.children,
                resource: span.resource_number,
            });
            for (column, attribute) in batch.columns.iter_mut().zip(&fetch.span_attributes) {
                column.extend(trace.values(span, attribute));
            }
            for (rows, attributes, count) in [
                (&mut batch.events, &fetch.event_attributes, span.events.len()),
                (&mut batch.links, &fetch.link_attributes, span.links.len()),
            ] {
                if let Some(last) = rows.offsets.last() {
                    rows.offsets.push(last + u32::try_from(count).expect("few"));
                }
                for (column, attribute) in rows.columns.iter_mut().zip(attributes) {
                    column.extend(trace.values(span, attribute));
                }
            }
            let error = u32::from(span.status.0 == Status::Error);
            match services.iter_mut().find(|s| &*s.service == span.service) {
                Some(stat) => (stat.spans, stat.errors) = (stat.spans + 1, stat.errors + error),
                None => services.push(ServiceStat { service: span.service.into(), spans: 1, errors: error }),
            }
        }
        batch.traces.push(TraceRow {
            trace_id: trace.id.parse().expect("an id"),
            start_unix_nanos: trace.start(),
            end_unix_nanos: trace.end(),
            root_name: trace.root.0.into(),
            root_service: trace.root.1.into(),
            services,
            spans: first..batch.spans.len(),
        });
    }
    batch
}
