//! Looking into the bucket, and at blocks one by one.

mod analyse;
mod convert;
mod dump;
mod inspect;
mod ls;
mod place;
mod verify;

use std::io::Write;

use clap::Subcommand;

use crate::Ending;

/// Look into the bucket.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the blocks of all tenants, or of one.
    Ls(ls::Command),
    /// Show what a block is made of: row groups, columns, their sizes, encodings and dictionaries.
    Inspect(inspect::Command),
    /// Show which attributes take the space, and which deserve a column of their own.
    Analyse(analyse::Command),
    /// Print traces as OTLP JSON, one to a line.
    Dump(dump::Command),
    /// Check checksums, objects, order, and what is derived from spans. Exits with 1 when something is wrong.
    Verify(verify::Command),
    /// Write a block anew as vParquet4: one of vParquet5, or one whose derived columns are wrong.
    Convert(convert::Command),
}

pub(crate) async fn run(command: Command, out: &mut dyn Write) -> anyhow::Result<Ending> {
    let text = match command {
        Command::Ls(command) => ls::run(command).await?,
        Command::Inspect(command) => inspect::run(command).await?,
        Command::Analyse(command) => analyse::run(command).await?,
        Command::Convert(command) => convert::run(command).await?,
        Command::Dump(command) => return dump::run(command, out).await,
        Command::Verify(command) => return verify::run(command, out).await,
    };
    out.write_all(text.as_bytes())?;
    Ok(Ending::Good)
}
