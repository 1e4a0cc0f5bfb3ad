//! Which column of the file holds what. The one place that knows how vParquet4 and vParquet5 differ.

use rustc_hash::FxHashMap;

use super::fault::Fault;
use super::footer::{Footer, Leaf, Physical};
use crate::dedicated::VPARQUET4_RESOURCE_COLUMNS;
use crate::{BlockMeta, DedicatedScope, DedicatedType, Format};

/// The position of a column.
pub(crate) type LeafId = usize;

/// The columns of a list of attributes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttrLeaves {
    pub(crate) key: LeafId,
    pub(crate) is_array: LeafId,
    pub(crate) text: LeafId,
    pub(crate) int: LeafId,
    pub(crate) double: LeafId,
    pub(crate) boolean: LeafId,
    pub(crate) unsupported: LeafId,
}

impl AttrLeaves {
    pub(crate) fn all(&self) -> [LeafId; 7] {
        [self.key, self.is_array, self.text, self.int, self.double, self.boolean, self.unsupported]
    }
}

/// An attribute with a column of its own.
#[derive(Debug, Clone)]
pub(crate) struct OwnColumn {
    pub(crate) key: String,
    pub(crate) leaf: LeafId,
    /// Configured, as opposed to given by the format.
    pub(crate) dedicated: bool,
}

/// All that is read.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) trace_id: LeafId,
    pub(crate) start: LeafId,
    pub(crate) end: LeafId,
    pub(crate) root_service: LeafId,
    pub(crate) root_name: LeafId,
    pub(crate) stat_service: LeafId,
    pub(crate) stat_spans: LeafId,
    pub(crate) stat_errors: LeafId,
    pub(crate) service_name: LeafId,
    pub(crate) resource: AttrLeaves,
    pub(crate) resource_dropped: LeafId,
    /// In the order they have in OTLP results: dedicated, then well-known.
    pub(crate) resource_own: Vec<OwnColumn>,
    /// How many of those come before `service.name` there.
    pub(crate) before_service_name: usize,
    pub(crate) scope_name: LeafId,
    pub(crate) scope_version: LeafId,
    pub(crate) scope: AttrLeaves,
    pub(crate) scope_dropped: LeafId,
    pub(crate) span_id: LeafId,
    pub(crate) parent_span_id: LeafId,
    pub(crate) nested_parent: LeafId,
    pub(crate) nested_left: LeafId,
    pub(crate) nested_right: LeafId,
    /// vParquet5 only.
    pub(crate) child_count: Option<LeafId>,
    pub(crate) name: LeafId,
    pub(crate) kind: LeafId,
    pub(crate) trace_state: LeafId,
    pub(crate) span_start: LeafId,
    pub(crate) duration: LeafId,
    pub(crate) status: LeafId,
    pub(crate) status_message: LeafId,
    pub(crate) span: AttrLeaves,
    pub(crate) span_dropped: LeafId,
    pub(crate) span_own: Vec<OwnColumn>,
    pub(crate) event_time: LeafId,
    pub(crate) event_name: LeafId,
    pub(crate) event: AttrLeaves,
    pub(crate) event_dropped: LeafId,
    pub(crate) event_own: Vec<OwnColumn>,
    pub(crate) dropped_events: LeafId,
    pub(crate) link_trace: LeafId,
    pub(crate) link_span: LeafId,
    pub(crate) link_state: LeafId,
    pub(crate) link: AttrLeaves,
    pub(crate) link_dropped: LeafId,
    pub(crate) dropped_links: LeafId,
    /// An attribute without any value is one without a value (vParquet4) or none (vParquet5).
    pub(crate) keeps_unset: bool,
}

impl Layout {
    pub(crate) fn new(meta: &BlockMeta, footer: &Footer) -> Result<Self, Fault> {
        let by_path = footer.leaves.iter().enumerate().map(|(id, leaf)| (leaf.path.as_str(), (id, leaf))).collect();
        let find = Finder { by_path, v5: meta.format == Format::VParquet5 };
        use Physical::{ByteArray, Int32, Int64};
        let stats = |v4: &str, v5: &str, physical| {
            let path = if find.v5 { v5 } else { v4 };
            find.leaf(&format!("ServiceStats.{path}"), physical, 1, 0)
        };
        let span = |name: &str, physical| find.leaf(&format!("rs.ss.Spans.{name}"), physical, 3, 0);
        let event = |name: &str, physical| find.leaf(&format!("rs.ss.Spans.Events.{name}"), physical, 4, 0);
        let link = |name: &str, physical| find.leaf(&format!("rs.ss.Spans.Links.{name}"), physical, 4, 0);
        let trace = |name: &str, physical| find.leaf(name, physical, 0, 0);
        let [resource_own, span_own, event_own] = find.own_columns(meta)?;
        Ok(Self {
            trace_id: trace("TraceID", ByteArray)?,
            start: trace("StartTimeUnixNano", Int64)?,
            end: trace("EndTimeUnixNano", Int64)?,
            root_service: trace("RootServiceName", ByteArray)?,
            root_name: trace("RootSpanName", ByteArray)?,
            stat_service: stats("key_value.key", "ServiceName", ByteArray)?,
            stat_spans: stats("key_value.value.SpanCount", "SpanCount", Int32)?,
            stat_errors: stats("key_value.value.ErrorCount", "ErrorCount", Int32)?,
            service_name: find.leaf("rs.Resource.ServiceName", ByteArray, 1, 0)?,
            resource: find.attrs("rs.Resource", 2)?,
            resource_dropped: find.leaf("rs.Resource.DroppedAttributesCount", Int32, 1, 0)?,
            before_service_name: resource_own.iter().filter(|own| own.dedicated).count(),
            resource_own,
            scope_name: find.leaf("rs.ss.Scope.Name", ByteArray, 2, 0)?,
            scope_version: find.leaf("rs.ss.Scope.Version", ByteArray, 2, 0)?,
            scope: find.attrs("rs.ss.Scope", 3)?,
            scope_dropped: find.leaf("rs.ss.Scope.DroppedAttributesCount", Int32, 2, 0)?,
            span_id: span("SpanID", ByteArray)?,
            parent_span_id: span("ParentSpanID", ByteArray)?,
            nested_parent: span("ParentID", Int32)?,
            nested_left: span("NestedSetLeft", Int32)?,
            nested_right: span("NestedSetRight", Int32)?,
            child_count: if find.v5 { Some(span("ChildCount", Int32)?) } else { None },
            name: span("Name", ByteArray)?,
            kind: span("Kind", Int64)?,
            trace_state: span("TraceState", ByteArray)?,
            span_start: span("StartTimeUnixNano", Int64)?,
            duration: span("DurationNano", Int64)?,
            status: span("StatusCode", Int64)?,
            status_message: span("StatusMessage", ByteArray)?,
            span: find.attrs("rs.ss.Spans", 4)?,
            span_dropped: span("DroppedAttributesCount", Int32)?,
            span_own,
            event_time: event("TimeSinceStartNano", Int64)?,
            event_name: event("Name", ByteArray)?,
            event: find.attrs("rs.ss.Spans.Events", 5)?,
            event_dropped: event("DroppedAttributesCount", Int32)?,
            event_own,
            dropped_events: span("DroppedEventsCount", Int32)?,
            link_trace: link("TraceID", ByteArray)?,
            link_span: link("SpanID", ByteArray)?,
            link_state: link("TraceState", ByteArray)?,
            link: find.attrs("rs.ss.Spans.Links", 5)?,
            link_dropped: link("DroppedAttributesCount", Int32)?,
            dropped_links: span("DroppedLinksCount", Int32)?,
            keeps_unset: !find.v5,
        })
    }
}

struct Finder<'a> {
    by_path: FxHashMap<&'a str, (LeafId, &'a Leaf)>,
    v5: bool,
}

impl Finder<'_> {
    /// A column by its path, of the right type, in `depth` lists, `optional` levels below.
    fn leaf(&self, path: &str, physical: Physical, depth: u8, optional: u8) -> Result<LeafId, Fault> {
        let Some((id, leaf)) = self.by_path.get(path) else { return Err(Fault::corrupt(format!("there is no column {path}"))) };
        if leaf.physical != physical || leaf.max_rep != depth || leaf.max_def != depth + optional {
            return Err(Fault::corrupt(format!(
                "column {path} is {:?} with levels {}/{}, expected {physical:?} with {depth}/{}",
                leaf.physical,
                leaf.max_rep,
                leaf.max_def,
                depth + optional
            )));
        }
        Ok(*id)
    }

    fn attrs(&self, parent: &str, depth: u8) -> Result<AttrLeaves, Fault> {
        let leaf = |name: &str, physical, depth, optional| self.leaf(&format!("{parent}.Attrs.{name}"), physical, depth, optional);
        Ok(AttrLeaves {
            key: leaf("Key", Physical::ByteArray, depth, 0)?,
            is_array: leaf("IsArray", Physical::Boolean, depth, 0)?,
            text: leaf("Value", Physical::ByteArray, depth + 1, 0)?,
            int: leaf("ValueInt", Physical::Int64, depth + 1, 0)?,
            double: leaf("ValueDouble", Physical::Double, depth + 1, 0)?,
            boolean: leaf("ValueBool", Physical::Boolean, depth + 1, 0)?,
            unsupported: leaf("ValueUnsupported", Physical::ByteArray, depth, 1)?,
        })
    }

    /// Attributes with their own columns: of resources, spans and events.
    fn own_columns(&self, meta: &BlockMeta) -> Result<[Vec<OwnColumn>; 3], Fault> {
        let mut own = [Vec::new(), Vec::new(), Vec::new()];
        let mut slots: FxHashMap<(DedicatedScope, DedicatedType), usize> = FxHashMap::default();
        for column in &meta.dedicated_columns {
            let slot = slots.entry((column.scope, column.kind)).or_default();
            *slot += 1;
            let (parent, depth, list) = match column.scope {
                DedicatedScope::Resource => ("rs.Resource", 1, &mut own[0]),
                DedicatedScope::Span => ("rs.ss.Spans", 3, &mut own[1]),
                DedicatedScope::Event => ("rs.ss.Spans.Events", 4, &mut own[2]),
            };
            let (name, physical) = match column.kind {
                DedicatedType::String => ("String", Physical::ByteArray),
                DedicatedType::Int => ("Int", Physical::Int64),
            };
            let path = format!("{parent}.DedicatedAttributes.{name}{slot:02}");
            // What has no slot stays a generic attribute.
            if self.by_path.contains_key(path.as_str()) {
                let leaf = if self.v5 { self.leaf(&path, physical, depth + 1, 0)? } else { self.leaf(&path, physical, depth, 1)? };
                list.push(OwnColumn { key: column.name.clone(), leaf, dedicated: true });
            }
        }
        if !self.v5 {
            let names =
                ["Cluster", "Namespace", "Pod", "Container", "K8sClusterName", "K8sNamespaceName", "K8sPodName", "K8sContainerName"];
            for (key, name) in VPARQUET4_RESOURCE_COLUMNS.iter().zip(names) {
                let leaf = self.leaf(&format!("rs.Resource.{name}"), Physical::ByteArray, 1, 1)?;
                own[0].push(OwnColumn { key: (*key).to_owned(), leaf, dedicated: false });
            }
            for (key, name, physical) in [
                ("http.method", "HttpMethod", Physical::ByteArray),
                ("http.url", "HttpUrl", Physical::ByteArray),
                ("http.status_code", "HttpStatusCode", Physical::Int64),
            ] {
                let leaf = self.leaf(&format!("rs.ss.Spans.{name}"), physical, 3, 1)?;
                own[1].push(OwnColumn { key: key.to_owned(), leaf, dedicated: false });
            }
        }
        Ok(own)
    }
}
