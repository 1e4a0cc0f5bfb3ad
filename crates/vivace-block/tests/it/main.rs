//! What the crate promises, through its public doors.

mod live;
mod made;
mod merge;
mod partial;
mod read;
mod read_broken;
mod read_frames;
mod read_search;
mod read_written;
mod round_trip;
mod traps;
