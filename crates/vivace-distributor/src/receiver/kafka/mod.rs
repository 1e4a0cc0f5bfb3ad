//! Spans from a topic of Kafka. Source: docs/facts/configuration.md, "Kafka receiver".
//!
//! A message is stored before its offset is committed: one that a process took with it when it died comes again, and its spans are
//! combined with what was stored. What is refused for now is tried again while nothing more is fetched; what can never be stored is
//! counted, logged and left behind, so that no partition stands still for it.

mod client;
mod consume;
mod convert;
mod headers;
mod pause;
mod store;

#[cfg(test)]
mod tests;

pub(crate) use consume::Consume;
#[cfg(feature = "fuzzing")]
pub(crate) use headers::with_attributes;
