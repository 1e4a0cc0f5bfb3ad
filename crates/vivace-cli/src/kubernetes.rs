//! Steps of the charts that need the API of the cluster, so that their jobs need no image with kubectl.

mod api;
mod enlarge;

use std::io::Write;

use clap::Subcommand;

use crate::Ending;

/// Steps of the Helm charts' jobs, from inside the cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Enlarge the volume claims of StatefulSets, and delete these without their pods, so that they can be made anew.
    EnlargeClaims(enlarge::Command),
}

pub(crate) async fn run(command: Command, out: &mut dyn Write) -> anyhow::Result<Ending> {
    match command {
        Command::EnlargeClaims(command) => enlarge::run(command, out).await,
    }
}
