//! Checks that an installation works.

mod otlp;
mod ready;
mod round_trip;
mod spans;

use std::io::Write;

use clap::Subcommand;

use crate::Ending;

/// Check that an installation works.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Whether a process is ready: for health checks of containers, which have no shell and no curl.
    Ready(ready::Command),
    /// Write a small trace, and read it back by its id and by a search.
    RoundTrip(round_trip::Command),
}

pub(crate) async fn run(command: Command, out: &mut dyn Write) -> anyhow::Result<Ending> {
    match command {
        Command::Ready(command) => ready::run(command, out).await,
        Command::RoundTrip(command) => round_trip::run(command, out).await,
    }
}
