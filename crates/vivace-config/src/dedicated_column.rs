//! Attributes that are to have columns of their own, as blocks and tenants' limits list them, and the list that Tempo has where
//! none is configured. How many there may be is in `check`.

use crate::section::{choice, section};
use crate::value::default;

choice! {
    /// Type of a dedicated column.
    pub enum ColumnType {
        /// Text.
        String = "string";
        /// Whole numbers.
        Int = "int";
    }
}

choice! {
    /// Scope of the attribute in a dedicated column.
    pub enum ColumnScope {
        /// The span.
        Span = "span";
        /// The resource.
        Resource = "resource";
        /// An event of the span.
        Event = "event";
    }
}

choice! {
    /// An option of a dedicated column.
    pub enum ColumnOption {
        /// Several values.
        Array = "array";
        /// Long values that repeat rarely.
        Blob = "blob";
    }
}

section! {
    /// `parquet_dedicated_columns[]`: an attribute that gets a column of its own.
    pub struct DedicatedColumn {
        /// Key of the attribute.
        used name: String = String::new();
        /// Type of its values.
        used column_type as "type": ColumnType = default();
        /// Where the attribute is.
        used scope: ColumnScope = default();
        /// Options.
        used options: Vec<ColumnOption> = vec![];
    }
}

impl DedicatedColumn {
    /// The columns that Tempo 2.10 writes when none are configured.
    #[must_use]
    pub fn defaults() -> Vec<Self> {
        use ColumnScope::{Resource, Span};
        use ColumnType::{Int, String};
        [
            (Resource, "k8s.cluster.name", String),
            (Resource, "k8s.namespace.name", String),
            (Resource, "k8s.pod.name", String),
            (Resource, "k8s.container.name", String),
            (Span, "http.request.method", String),
            (Span, "http.response.status_code", Int),
            (Span, "url.path", String),
            (Span, "url.route", String),
            (Span, "server.address", String),
            (Span, "server.port", Int),
            (Span, "http.method", String),
            (Span, "http.url", String),
            (Span, "http.route", String),
            (Span, "http.status_code", Int),
        ]
        .into_iter()
        .map(|(scope, name, column_type)| Self { name: name.to_owned(), column_type, scope, options: vec![] })
        .collect()
    }
}
