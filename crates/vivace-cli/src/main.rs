//! `vivace-cli`.

use std::process::ExitCode;

use clap::Parser;
use vivace_cli::Cli;

#[tokio::main]
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "this is a command line")]
async fn main() -> ExitCode {
    match vivace_cli::run(Cli::parse()).await {
        Ok(answer) => {
            print!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
