//! The crate through its public door.

mod grammar;
