//! What the crate promises, through its public doors.

mod read;
mod read_search;
