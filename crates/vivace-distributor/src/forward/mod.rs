//! Copies of the spans that are stored: to metrics-generators, and to other systems. They never hold up storing: what does not fit
//! into a tenant's queue is dropped and counted.

mod filter;
pub(crate) mod generator;
pub(crate) mod otlp;
mod queue;
