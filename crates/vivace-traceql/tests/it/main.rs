//! The crate through its public door.

mod combining;
mod data;
mod evaluation;
mod examples;
mod explaining;
mod grammar;
mod held;
mod legacy;
mod metrics;
mod metrics_merge;
mod metrics_rules;
mod printing;
mod requests;
mod tags;
