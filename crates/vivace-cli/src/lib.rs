//! The command line: asks a running Vivace (or Tempo) questions, checks that it works, looks into blocks, checks configuration.
//!
//! A command writes its answer to where it is told. Start with [`Cli`] and [`run`].

mod block;
mod check;
mod client;
mod config;
mod explain;
mod kubernetes;
mod metrics;
mod otlp_json;
mod progress;
mod search;
mod tags;
mod terminal;
mod text;
mod times;
mod tls;
mod trace;

use std::io::Write;

use clap::{Args, Parser, Subcommand};

use client::Client;
pub use terminal::Output;
use tls::Tls;

/// Asks a running Vivace questions, checks that it works, looks into blocks, checks configuration.
#[derive(Debug, Parser)]
#[command(name = "vivace-cli", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ask a running process.
    Query {
        #[command(flatten)]
        server: Server,
        #[command(subcommand)]
        query: Query,
    },
    /// Look into the bucket.
    Block {
        #[command(subcommand)]
        block: block::Command,
    },
    /// Check that an installation works.
    Check {
        #[command(subcommand)]
        check: check::Command,
    },
    /// Steps of the Helm charts' jobs, from inside the cluster.
    Kubernetes {
        #[command(subcommand)]
        kubernetes: kubernetes::Command,
    },
    /// Check configuration files.
    Config {
        #[command(subcommand)]
        config: config::Command,
    },
}

/// Where questions go.
#[derive(Debug, Args)]
struct Server {
    /// Address of the HTTP listener of `vivace` or of a query-frontend.
    #[arg(long, global = true, default_value = "http://127.0.0.1:3200")]
    address: String,
    /// Tenant; several are joined by `|`. Needed where multitenancy is on.
    #[arg(long, global = true)]
    org_id: Option<String>,
    #[command(flatten)]
    tls: Tls,
}

#[derive(Debug, Subcommand)]
enum Query {
    /// One trace as a tree, by its id.
    Trace(trace::Command),
    /// Traces that a TraceQL query finds, newest first.
    Search(search::Command),
    /// Series over time that a TraceQL metrics query makes.
    Metrics(metrics::Command),
    /// Names of attributes.
    Tags(tags::Tags),
    /// Values of an attribute, such as `resource.service.name`.
    TagValues(tags::TagValues),
    /// How a TraceQL query would be answered, without asking anyone.
    Explain(explain::Command),
}

/// How a command ended that did what it was asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All is well.
    Good,
    /// It looked for something wrong, and found it.
    Bad,
}

/// Runs one command. Its answer goes to `out`.
///
/// # Errors
/// What went wrong and what to do about it, for people.
pub async fn run(cli: Cli, out: &mut dyn Write) -> anyhow::Result<Ending> {
    let answer = match cli.command {
        Command::Query { server, query } => {
            let client = Client::new(&server.address, server.org_id, &server.tls)?;
            match query {
                Query::Trace(command) => trace::run(command, &client).await?,
                Query::Search(command) => search::run(command, &client).await?,
                Query::Metrics(command) => metrics::run(command, &client).await?,
                Query::Tags(command) => tags::names(command, &client).await?,
                Query::TagValues(command) => tags::values(command, &client).await?,
                Query::Explain(command) => explain::run(&command)?,
            }
        }
        Command::Block { block } => return block::run(block, out).await,
        Command::Check { check } => return check::run(check, out).await,
        Command::Kubernetes { kubernetes } => return kubernetes::run(kubernetes, out).await,
        Command::Config { config } => config::run(config)?,
    };
    out.write_all(answer.as_bytes())?;
    Ok(Ending::Good)
}
