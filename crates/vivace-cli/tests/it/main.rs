//! The command line as its user sees it, with a server made of canned answers and a bucket in a folder.

mod block;
mod check;
mod config;
mod kubernetes;
mod query;

use axum::Router;
use clap::Parser;
use vivace_cli::{Cli, Ending, run};

/// Runs a command; errors as the text that a user reads. A command that finds something wrong is none.
pub(crate) async fn cli(args: &[&str]) -> Result<String, String> {
    answer(args).await.map(|(_, text)| text)
}

/// Runs a command; its ending and what it wrote.
pub(crate) async fn answer(args: &[&str]) -> Result<(Ending, String), String> {
    let args = Cli::try_parse_from(std::iter::once(&"vivace-cli").chain(args)).map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    let ending = run(args, &mut out).await.map_err(|error| format!("{error:#}"))?;
    Ok((ending, String::from_utf8(out).expect("text")))
}

/// Serves canned answers and returns the address.
pub(crate) async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, router).await });
    // The server lives as long as the test's runtime.
    tasks.detach_all();
    format!("http://{address}")
}
