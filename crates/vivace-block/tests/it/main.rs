//! What the crate promises, through its public doors.

mod read;
