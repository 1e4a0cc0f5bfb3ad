//! The columns of vParquet4: 103 leaves whose order, names and levels are the format.
//!
//! Source: docs/facts/blocks.md, "vParquet4 schema".

use std::sync::{Arc, LazyLock};

use parquet::schema::parser::parse_message_type;
use parquet::schema::types::{ColumnDescriptor, SchemaDescPtr, SchemaDescriptor};

/// A column of vParquet4, by its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Leaf(u8);

/// The seven columns of a list of attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttrLeaves {
    /// `Key`
    pub key: Leaf,
    /// `IsArray`
    pub is_array: Leaf,
    /// `Value`, one level deeper than `Key`
    pub string: Leaf,
    /// `ValueInt`, one level deeper than `Key`
    pub int: Leaf,
    /// `ValueDouble`, one level deeper than `Key`
    pub double: Leaf,
    /// `ValueBool`, one level deeper than `Key`
    pub bool: Leaf,
    /// `ValueUnsupported`, optional
    pub unsupported: Leaf,
}

impl AttrLeaves {
    const fn at(key: u8) -> Self {
        Self {
            key: Leaf(key),
            is_array: Leaf(key + 1),
            string: Leaf(key + 2),
            int: Leaf(key + 3),
            double: Leaf(key + 4),
            bool: Leaf(key + 5),
            unsupported: Leaf(key + 6),
        }
    }
}

macro_rules! leaves {
    ($($name:ident = $index:literal $path:literal;)*) => {
        impl Leaf {
            $(#[doc = concat!("`", $path, "`")] pub const $name: Self = Self($index);)*
        }

        /// Constants and the paths they stand for; `L` is `list.element`.
        #[cfg(test)]
        const NAMED: &[(Leaf, &str)] = &[$((Leaf::$name, $path)),*];
    };
}

leaves! {
    TRACE_ID = 0 "TraceID";
    TRACE_ID_TEXT = 1 "TraceIDText";
    START = 2 "StartTimeUnixNano";
    END = 3 "EndTimeUnixNano";
    DURATION = 4 "DurationNano";
    ROOT_SERVICE_NAME = 5 "RootServiceName";
    ROOT_SPAN_NAME = 6 "RootSpanName";
    STATS_SERVICE = 7 "ServiceStats.key_value.key";
    STATS_SPANS = 8 "ServiceStats.key_value.value.SpanCount";
    STATS_ERRORS = 9 "ServiceStats.key_value.value.ErrorCount";
    RESOURCE_DROPPED_ATTRS = 17 "rs.L.Resource.DroppedAttributesCount";
    SERVICE_NAME = 18 "rs.L.Resource.ServiceName";
    SCOPE_NAME = 37 "rs.L.ss.L.Scope.Name";
    SCOPE_VERSION = 38 "rs.L.ss.L.Scope.Version";
    SCOPE_DROPPED_ATTRS = 46 "rs.L.ss.L.Scope.DroppedAttributesCount";
    SPAN_ID = 47 "rs.L.ss.L.Spans.L.SpanID";
    PARENT_SPAN_ID = 48 "rs.L.ss.L.Spans.L.ParentSpanID";
    NESTED_SET_PARENT = 49 "rs.L.ss.L.Spans.L.ParentID";
    NESTED_SET_LEFT = 50 "rs.L.ss.L.Spans.L.NestedSetLeft";
    NESTED_SET_RIGHT = 51 "rs.L.ss.L.Spans.L.NestedSetRight";
    SPAN_NAME = 52 "rs.L.ss.L.Spans.L.Name";
    SPAN_KIND = 53 "rs.L.ss.L.Spans.L.Kind";
    SPAN_TRACE_STATE = 54 "rs.L.ss.L.Spans.L.TraceState";
    SPAN_START = 55 "rs.L.ss.L.Spans.L.StartTimeUnixNano";
    SPAN_DURATION = 56 "rs.L.ss.L.Spans.L.DurationNano";
    STATUS_CODE = 57 "rs.L.ss.L.Spans.L.StatusCode";
    STATUS_MESSAGE = 58 "rs.L.ss.L.Spans.L.StatusMessage";
    SPAN_DROPPED_ATTRS = 66 "rs.L.ss.L.Spans.L.DroppedAttributesCount";
    EVENT_TIME_SINCE_START = 67 "rs.L.ss.L.Spans.L.Events.L.TimeSinceStartNano";
    EVENT_NAME = 68 "rs.L.ss.L.Spans.L.Events.L.Name";
    EVENT_DROPPED_ATTRS = 76 "rs.L.ss.L.Spans.L.Events.L.DroppedAttributesCount";
    DROPPED_EVENTS = 77 "rs.L.ss.L.Spans.L.DroppedEventsCount";
    LINK_TRACE_ID = 78 "rs.L.ss.L.Spans.L.Links.L.TraceID";
    LINK_SPAN_ID = 79 "rs.L.ss.L.Spans.L.Links.L.SpanID";
    LINK_TRACE_STATE = 80 "rs.L.ss.L.Spans.L.Links.L.TraceState";
    LINK_DROPPED_ATTRS = 88 "rs.L.ss.L.Spans.L.Links.L.DroppedAttributesCount";
    DROPPED_LINKS = 89 "rs.L.ss.L.Spans.L.DroppedLinksCount";
    HTTP_METHOD = 90 "rs.L.ss.L.Spans.L.HttpMethod";
    HTTP_URL = 91 "rs.L.ss.L.Spans.L.HttpUrl";
    HTTP_STATUS_CODE = 92 "rs.L.ss.L.Spans.L.HttpStatusCode";
}

impl Leaf {
    /// How many there are.
    pub const COUNT: usize = 103;
    /// `rs.L.Resource.Attrs.L.…`
    pub const RESOURCE_ATTRS: AttrLeaves = AttrLeaves::at(10);
    /// `rs.L.ss.L.Scope.Attrs.L.…`
    pub const SCOPE_ATTRS: AttrLeaves = AttrLeaves::at(39);
    /// `rs.L.ss.L.Spans.L.Attrs.L.…`
    pub const SPAN_ATTRS: AttrLeaves = AttrLeaves::at(59);
    /// `rs.L.ss.L.Spans.L.Events.L.Attrs.L.…`
    pub const EVENT_ATTRS: AttrLeaves = AttrLeaves::at(69);
    /// `rs.L.ss.L.Spans.L.Links.L.Attrs.L.…`
    pub const LINK_ATTRS: AttrLeaves = AttrLeaves::at(81);

    /// The column of the attribute at this position of [`crate::dedicated::VPARQUET4_RESOURCE_COLUMNS`].
    #[must_use]
    pub const fn resource_column(position: usize) -> Self {
        assert!(position < 8);
        Self(19 + position as u8)
    }

    /// `rs.L.Resource.DedicatedAttributes.String01` for slot 0, and so on below [`crate::dedicated::VPARQUET4_SLOTS`].
    #[must_use]
    pub const fn resource_dedicated(slot: usize) -> Self {
        assert!(slot < crate::dedicated::VPARQUET4_SLOTS);
        Self(27 + slot as u8)
    }

    /// `rs.L.ss.L.Spans.L.DedicatedAttributes.String01` for slot 0, and so on.
    #[must_use]
    pub const fn span_dedicated(slot: usize) -> Self {
        assert!(slot < crate::dedicated::VPARQUET4_SLOTS);
        Self(93 + slot as u8)
    }

    /// All columns in the order of the file.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT as u8).map(Self)
    }

    /// Position in the file's schema.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Type, path and levels.
    #[must_use]
    pub fn column(self) -> &'static ColumnDescriptor {
        let schema: &'static SchemaDescPtr = &SCHEMA;
        schema.columns()[self.index()].as_ref()
    }
}

/// The schema of every vParquet4 file.
#[must_use]
pub fn vparquet4() -> SchemaDescPtr {
    Arc::clone(&SCHEMA)
}

static SCHEMA: LazyLock<SchemaDescPtr> = LazyLock::new(|| {
    let schema = parse_message_type(&message()).expect("the text below is a schema");
    Arc::new(SchemaDescriptor::new(Arc::new(schema)))
});

fn list(name: &str, element: &str) -> String {
    format!("required group {name} (LIST) {{ repeated group list {{ {element} }} }}\n")
}

fn group_list(name: &str, fields: &str) -> String {
    list(name, &format!("required group element {{ {fields} }}"))
}

fn dedicated() -> String {
    let slots: String = (1..=crate::dedicated::VPARQUET4_SLOTS).map(|n| format!("optional binary String{n:02} (STRING);\n")).collect();
    format!("required group DedicatedAttributes {{ {slots} }}")
}

fn message() -> String {
    let attrs = group_list(
        "Attrs",
        &[
            "required binary Key (STRING); required boolean IsArray;",
            &list("Value", "required binary element (STRING);"),
            &list("ValueInt", "required int64 element (INTEGER(64,true));"),
            &list("ValueDouble", "required double element;"),
            &list("ValueBool", "required boolean element;"),
            "optional binary ValueUnsupported (STRING);",
        ]
        .concat(),
    );
    let count = |name: &str| format!("required int32 {name} (INTEGER(32,true));\n");
    let dropped_attrs = count("DroppedAttributesCount");
    let dedicated = dedicated();
    let events = group_list(
        "Events",
        &format!(
            "required int64 TimeSinceStartNano (INTEGER(64,false));
             required binary Name (STRING);
             {attrs} {dropped_attrs}"
        ),
    );
    let links = group_list(
        "Links",
        &format!(
            "required binary TraceID;
             required binary SpanID;
             required binary TraceState (STRING);
             {attrs} {dropped_attrs}"
        ),
    );
    let spans = group_list(
        "Spans",
        &format!(
            "required binary SpanID;
             required binary ParentSpanID;
             {} {} {}
             required binary Name (STRING);
             required int64 Kind (INTEGER(64,true));
             required binary TraceState (STRING);
             required int64 StartTimeUnixNano (INTEGER(64,false));
             required int64 DurationNano (INTEGER(64,false));
             required int64 StatusCode (INTEGER(64,true));
             required binary StatusMessage (STRING);
             {attrs} {dropped_attrs}
             {events} {}
             {links} {}
             optional binary HttpMethod (STRING);
             optional binary HttpUrl (STRING);
             optional int64 HttpStatusCode (INTEGER(64,true));
             {dedicated}",
            count("ParentID"),
            count("NestedSetLeft"),
            count("NestedSetRight"),
            count("DroppedEventsCount"),
            count("DroppedLinksCount"),
        ),
    );
    let scope = format!(
        "required group Scope {{
             required binary Name (STRING);
             required binary Version (STRING);
             {attrs} {dropped_attrs}
         }}"
    );
    let resource = format!(
        "required group Resource {{
             {attrs} {dropped_attrs}
             required binary ServiceName (STRING);
             optional binary Cluster (STRING);
             optional binary Namespace (STRING);
             optional binary Pod (STRING);
             optional binary Container (STRING);
             optional binary K8sClusterName (STRING);
             optional binary K8sNamespaceName (STRING);
             optional binary K8sPodName (STRING);
             optional binary K8sContainerName (STRING);
             {dedicated}
         }}"
    );
    let resource_spans = group_list("rs", &format!("{resource} {}", group_list("ss", &format!("{scope} {spans}"))));
    format!(
        "message Trace {{
             required binary TraceID;
             required binary TraceIDText (STRING);
             required int64 StartTimeUnixNano (INTEGER(64,false));
             required int64 EndTimeUnixNano (INTEGER(64,false));
             required int64 DurationNano (INTEGER(64,false));
             required binary RootServiceName (STRING);
             required binary RootSpanName (STRING);
             required group ServiceStats (MAP) {{
                 repeated group key_value {{
                     required binary key (STRING);
                     required group value {{
                         required int32 SpanCount (INTEGER(32,false));
                         required int32 ErrorCount (INTEGER(32,false));
                     }}
                 }}
             }}
             {resource_spans}
         }}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::file::reader::{FileReader, SerializedFileReader};

    /// Type, annotations, levels, repetition of all ancestors.
    fn describe(column: &ColumnDescriptor) -> String {
        format!(
            "{} {} {:?} {:?} r{} d{} {:?}",
            column.path().string(),
            column.physical_type(),
            column.converted_type(),
            column.logical_type_ref(),
            column.max_rep_level(),
            column.max_def_level(),
            column.self_type().get_basic_info().repetition(),
        )
    }

    #[test]
    fn every_leaf_is_the_originals() {
        let file = bytes::Bytes::from_static(include_bytes!("../testdata/v4-edge-default/data.parquet"));
        let real = SerializedFileReader::new(file).expect("a real block");
        let real = real.metadata().file_metadata().schema_descr();
        let describe = |schema: &SchemaDescriptor| schema.columns().iter().map(|c| describe(c)).collect::<Vec<_>>();
        let ours = describe(&vparquet4());
        for (ours, real) in ours.iter().zip(describe(real)) {
            assert_eq!(*ours, real);
        }
        assert_eq!(ours.len(), Leaf::COUNT);
        assert_eq!(real.num_columns(), Leaf::COUNT);
        let text = |schema: &SchemaDescriptor| {
            let mut out = Vec::new();
            parquet::schema::printer::print_schema(&mut out, schema.root_schema());
            String::from_utf8(out).expect("text")
        };
        assert_eq!(text(&vparquet4()), text(real));
    }

    #[test]
    fn constants_name_their_paths() {
        for (leaf, path) in NAMED {
            assert_eq!(leaf.column().path().string(), path.replace(".L.", ".list.element."));
        }
        for attrs in [Leaf::RESOURCE_ATTRS, Leaf::SCOPE_ATTRS, Leaf::SPAN_ATTRS, Leaf::EVENT_ATTRS, Leaf::LINK_ATTRS] {
            assert!(attrs.key.column().path().string().ends_with("Attrs.list.element.Key"));
            assert_eq!(attrs.unsupported.column().name(), "ValueUnsupported");
        }
        assert_eq!(Leaf::resource_column(0).column().name(), "Cluster");
        assert_eq!(Leaf::resource_column(7).column().name(), "K8sContainerName");
        assert_eq!(Leaf::resource_dedicated(9).column().path().string(), "rs.list.element.Resource.DedicatedAttributes.String10");
        assert_eq!(
            Leaf::span_dedicated(0).column().path().string(),
            "rs.list.element.ss.list.element.Spans.list.element.DedicatedAttributes.String01"
        );
        assert_eq!(Leaf::all().count(), Leaf::COUNT);
    }
}
