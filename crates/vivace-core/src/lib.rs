//! The words that all of Vivace shares: ids, tokens, the wire form of spans, and operations on a trace.
//!
//! No IO, no clock, no runtime. Start with [`TenantId`], [`TraceId`] and [`otlp::walk_spans`].

pub mod budget;
pub mod cache;
mod chain;
pub mod combine;
pub mod duration;
pub mod files;
mod id;
pub mod metric;
pub mod otlp;
pub mod pieces;
mod tenant;
mod time;
pub mod traces;
pub mod wire;

pub use chain::Chain;
pub use id::{BlockId, ParseIdError, SpanId, Token, TraceId};
pub use tenant::{SINGLE_TENANT, TenantError, TenantId};
pub use time::{SECOND, TimeRange};
