//! The program, asked from a shell.

use std::io::pipe;
use std::process::{Command, Stdio};

/// Runs the program with an output that nobody reads, as after `| head -1`.
fn unread(arg: &str) -> (Option<i32>, String) {
    let (reader, writer) = pipe().expect("a pipe");
    drop(reader);
    let ended = Command::new(env!("CARGO_BIN_EXE_vivace-compactor")).arg(arg).stdout(writer).stdin(Stdio::null()).output().expect("runs");
    (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
}

#[test]
fn a_reader_that_has_enough_ends_it_quietly() {
    for arg in ["-help", "--help", "-version"] {
        assert_eq!(unread(arg), (Some(141), String::new()), "{arg}");
    }
}

#[test]
fn without_any_output_it_still_ends_with_its_code() {
    for (arg, code) in [("-no-such-flag", 2), ("-config.file=/nowhere", 1)] {
        let (reader, writer) = pipe().expect("a pipe");
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_vivace-compactor"));
        let ended = command.arg(arg).stdout(writer.try_clone().expect("a pipe")).stderr(writer).status().expect("runs");
        assert_eq!(ended.code(), Some(code), "{arg}");
    }
}
