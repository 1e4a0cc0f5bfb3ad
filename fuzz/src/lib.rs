//! Fuzz targets: one function per parser of foreign bytes that belongs to blocks and the log, for queries, for gossip, and for
//! what clients send.
//!
//! Each takes bytes, does with them what the product would, and returns; a panic, a hang or too much memory is a finding.
//! `make fuzz` runs them under libFuzzer, `tests/replay.rs` over the kept inputs. See docs/testing.md.

#![forbid(unsafe_code)]

mod ask;
pub mod column;
pub mod evaluate;
mod file;
pub mod footer;
pub mod gossip;
mod input;
pub mod jaeger;
pub mod kafka;
pub mod log;
pub mod objects;
pub mod pages;
pub mod query;
pub mod spans;
pub mod tenant_index;
mod thrift;
pub mod written;
pub mod zipkin;

/// A target's function.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its folders.
pub const TARGETS: &[(&str, Target)] = &[
    ("column", column::run),
    ("evaluate", evaluate::run),
    ("footer", footer::run),
    ("gossip", gossip::run),
    ("jaeger", jaeger::run),
    ("kafka", kafka::run),
    ("log", log::run),
    ("objects", objects::run),
    ("pages", pages::run),
    ("query", query::run),
    ("spans", spans::run),
    ("tenant_index", tenant_index::run),
    ("written", written::run),
    ("zipkin", zipkin::run),
];

/// What one input may have allocated at a time, bytes. A corrupt object must not take a process down with it.
pub const MEMORY_MAX: usize = 1 << 30;

/// Counts what is allocated and fails beyond [`MEMORY_MAX`]; of every program that runs targets.
pub type Allocator = cap::Cap<std::alloc::System>;

/// For `#[global_allocator]`.
#[must_use]
pub const fn allocator() -> Allocator {
    cap::Cap::new(std::alloc::System, MEMORY_MAX)
}
