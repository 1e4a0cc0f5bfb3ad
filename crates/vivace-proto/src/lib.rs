//! Rust for the messages and services in `proto/`: generated, committed, no logic.
//!
//! `make proto` writes `src/generated` anew; a test checks that it is current.
//! The OTLP and query messages also have serde implementations in the proto3 JSON mapping.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::unwrap_used, clippy::large_futures)]

mod json;

/// The OTLP trace model.
pub mod opentelemetry {
    pub mod proto {
        pub mod common {
            pub mod v1 {
                include!("generated/opentelemetry.proto.common.v1.rs");
                include!("generated/opentelemetry.proto.common.v1.serde.rs");
            }
        }
        pub mod trace {
            pub mod v1 {
                include!("generated/opentelemetry.proto.trace.v1.rs");
                include!("generated/opentelemetry.proto.trace.v1.serde.rs");
            }
        }
    }
}

/// The query API's messages and public services.
pub mod tempopb {
    include!("generated/tempopb.rs");
    include!("generated/tempopb.serde.rs");
}

/// Prometheus remote write.
pub mod prometheus {
    include!("generated/prometheus.rs");
}

/// Jaeger's collector and query API.
pub mod jaeger {
    pub mod api_v2 {
        include!("generated/jaeger.api_v2.rs");
    }
    pub mod api_v3 {
        include!("generated/jaeger.api_v3.rs");
    }
}

/// Zipkin's spans, version 2.
pub mod zipkin {
    pub mod proto3 {
        include!("generated/zipkin.proto3.rs");
    }
}

/// What only Vivace's own processes say to each other.
pub mod vivace {
    pub mod v1 {
        include!("generated/vivace.v1.rs");
    }
}

pub use bytes::Bytes;

/// The OTLP trace model under one short path: `otlp::Span`, `otlp::KeyValue`.
pub mod otlp {
    pub use super::opentelemetry::proto::common::v1::{
        AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, Resource, any_value,
    };
    pub use super::opentelemetry::proto::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, TracesData, span, status};
}
