//! What the crate promises, through its public doors.

mod by_id;
mod live;
mod made;
mod merge;
mod parity;
mod partial;
mod read;
mod read_broken;
mod read_frames;
mod read_search;
mod read_written;
mod rewrite;
mod round_trip;
mod shuffled;
mod traps;
