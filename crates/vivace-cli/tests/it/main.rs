//! The command line as its user sees it, with a server made of canned answers and a bucket in a folder.

mod block;
mod config;
mod query;

use clap::Parser;
use vivace_cli::{Cli, run};

/// Runs a command; errors as the text that a user reads.
pub(crate) async fn cli(args: &[&str]) -> Result<String, String> {
    let args = Cli::try_parse_from(std::iter::once(&"vivace-cli").chain(args)).map_err(|error| error.to_string())?;
    run(args).await.map_err(|error| format!("{error:#}"))
}
