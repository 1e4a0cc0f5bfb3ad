//! Whether one process is ready, by what it says itself. Asks once: how often is up to whoever runs the check.

use std::io::Write;
use std::time::Duration;

use clap::Args;

use crate::Ending;
use crate::client::Client;
use crate::tls::Tls;

/// Health checks are given a few seconds in most cases.
const ANSWER: Duration = Duration::from_secs(5);

/// Whether a process is ready.
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// HTTP listener of any of the services, with `server.http_path_prefix` where one is set.
    #[arg(long, default_value = "http://127.0.0.1:3200")]
    url: String,
    #[command(flatten)]
    tls: Tls,
}

pub(crate) async fn run(command: Command, out: &mut dyn Write) -> anyhow::Result<Ending> {
    let url = command.url.trim_end_matches('/').trim_end_matches("/ready");
    let client = Client::of_option("--url", url, None, &command.tls, ANSWER)?;
    match client.text("/ready").await? {
        Ok(_) => {
            writeln!(out, "{} is ready", client.address())?;
            Ok(Ending::Good)
        }
        Err(refusal) => {
            let text = if refusal.text.is_empty() { refusal.status.to_string() } else { refusal.text };
            writeln!(out, "{} is not ready: {text}", client.address())?;
            Ok(Ending::Bad)
        }
    }
}
