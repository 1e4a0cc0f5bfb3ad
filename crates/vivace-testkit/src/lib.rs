//! What tests of several crates share. A dev-dependency only.
//!
//! Start with [`TraceBuilder`]: it makes the messages that a client would send. [`block_meta`] describes a block that need not
//! exist. [`Faulty`] is a bucket that fails when told to.

mod meta;
mod store;
mod trace;

pub use meta::block_meta;
pub use store::{Faults, Faulty, Listings};
pub use trace::{TraceBuilder, attribute};
