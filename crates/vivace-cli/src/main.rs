//! `vivace-cli`.

use std::io::{BufWriter, ErrorKind, Write};
use std::process::ExitCode;

use clap::Parser;
use vivace_cli::{Cli, Ending, Output};

#[tokio::main]
async fn main() -> ExitCode {
    let mut out = BufWriter::new(Output::of_process());
    let ended = vivace_cli::run(Cli::parse(), &mut out).await;
    let ended = ended.and_then(|ending| Ok(out.flush().map(|()| ending)?));
    match ended {
        Ok(Ending::Good) => ExitCode::SUCCESS,
        Ok(Ending::Bad) => ExitCode::FAILURE,
        // Whoever read the answer has enough of it.
        Err(error) if error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe) => {
            ExitCode::from(u8::try_from(vivace_server::BROKEN_PIPE_CODE).unwrap_or(u8::MAX))
        }
        Err(error) => {
            // What there is comes before what is wrong with the rest; a failure to say so changes nothing.
            let _ = out.flush();
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
