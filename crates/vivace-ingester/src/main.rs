//! The `vivace-ingester` binary.

use std::sync::Arc;

use anyhow::Context;

vivace_server::allocator!();

fn main() {}
