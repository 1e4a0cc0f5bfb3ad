//! From the command line and the file it names to a checked configuration.

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::Path;
use std::process::exit;
use std::sync::OnceLock;

use vivace_config::flags::Flags;
use vivace_config::{Config, Target, Warning, WarningKind};
use vivace_core::files;

use crate::build;
use crate::verify::verify;

/// `-config.expand-env`: also holds for the per-tenant file, which is read again while the process runs.
static EXPAND_ENV: OnceLock<bool> = OnceLock::new();

/// The configuration of this process from its arguments, the program's name first.
///
/// Ends the process where there is nothing to run: code 0 after `-version`, `-help` and a `-config.verify` without remarks,
/// 1 for a file that is missing or wrong and a `-config.verify` with remarks, 2 for a flag that does not exist.
/// Every problem is said on standard error, all at once. Warnings are said there too, and logged by nobody again.
///
/// Source: docs/facts/configuration.md, "Loading" and "Flags".
pub fn load(args: impl IntoIterator<Item = OsString>) -> Config {
    let mut args = args.into_iter().map(|arg| arg.to_string_lossy().into_owned());
    let program = args.next().unwrap_or_default();
    let name = Path::new(&program).file_name().map_or_else(|| "vivace".to_owned(), |name| name.to_string_lossy().into_owned());
    match outcome(&name, args.collect()) {
        Outcome::Run(config, warnings) => {
            for warning in warnings {
                say(&format!("warning: {warning}"));
            }
            *config
        }
        Outcome::End { code: 0, text } => exit(show(&text)),
        Outcome::End { code, text } => {
            say(&text);
            exit(code)
        }
    }
}

/// As [`load`], for the program of one service: what the configuration says of a process of all services does not hold for it.
pub fn load_service(target: Target, args: impl IntoIterator<Item = OsString>) -> Config {
    let mut args: Vec<OsString> = args.into_iter().collect();
    args.insert(args.len().min(1), format!("-target={target}").into());
    load(args)
}

/// What the command line asks for.
enum Outcome {
    Run(Box<Config>, Vec<Warning>),
    End { code: i32, text: String },
}

fn outcome(name: &str, args: Vec<String>) -> Outcome {
    let flags = match Flags::parse(args) {
        Ok(flags) => flags,
        Err(error) => return Outcome::End { code: 2, text: format!("{name}: {error}; {name} -help lists the flags") },
    };
    if flags.help {
        return Outcome::End { code: 0, text: Flags::usage(name) };
    }
    if flags.version {
        return Outcome::End { code: 0, text: build::text(name) };
    }
    EXPAND_ENV.get_or_init(|| flags.expand_env);
    let text = match flags.config_file.as_deref().map(|file| read(file, flags.expand_env)).transpose() {
        Ok(text) => text,
        Err(text) => return Outcome::End { code: 1, text },
    };
    let file = text.as_deref().zip(flags.config_file.as_deref());
    match Config::load(file, &flags) {
        Err(errors) => Outcome::End { code: 1, text: format!("failed parsing config: {errors}") },
        Ok((config, mut warnings)) if flags.verify => {
            match verify(&config) {
                Ok(more) => warnings.extend(more),
                Err(text) => return Outcome::End { code: 1, text },
            }
            let failed = warnings.iter().any(|warning| warning.kind == WarningKind::Advice);
            let mut text: String = warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
            text.push_str(if failed { "the configuration has warnings" } else { "the configuration is valid" });
            Outcome::End { code: i32::from(failed), text }
        }
        Ok((config, warnings)) => Outcome::Run(Box::new(config), warnings),
    }
}

/// A configuration file is at most so large, bytes: more is another file.
const CONFIG_BYTES_MAX: u64 = 16 << 20;

/// A file of limits per tenant is at most so large, bytes: some limits of each of a hundred thousand tenants.
const OVERRIDES_BYTES_MAX: u64 = 64 << 20;

/// The text of a file of limits per tenant, with the environment's variables in it where the command line asks for that.
///
/// # Errors
/// What is wrong, for people.
pub(crate) fn read_overrides(file: &str) -> Result<String, String> {
    // It is read again and again, by nobody who could wait for a pipe.
    files::check(Path::new(file)).map_err(|reason| format!("failed to read configFile {file}: {reason}"))?;
    read_expanded(file, OVERRIDES_BYTES_MAX, EXPAND_ENV.get().copied().unwrap_or(false))
}

fn read(file: &str, expand_env: bool) -> Result<String, String> {
    read_expanded(file, CONFIG_BYTES_MAX, expand_env)
}

fn read_expanded(file: &str, bytes_max: u64, expand_env: bool) -> Result<String, String> {
    let text = read_text(file, bytes_max).map_err(|reason| format!("failed to read configFile {file}: {reason}"))?;
    if !expand_env {
        return Ok(text);
    }
    vivace_config::expand(&text, &environment).map_err(|error| format!("{file}: {error}"))
}

/// The text of a file of at most so many bytes.
///
/// # Errors
/// What is wrong, for people. None of the text is in it.
pub fn read_text(file: &str, bytes_max: u64) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|opened| opened.take(bytes_max + 1).read_to_end(&mut bytes));
    read.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("it is larger than {} MiB", bytes_max >> 20));
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        format!("it is no text in UTF-8, see line {}", 1 + before.iter().filter(|byte| **byte == b'\n').count())
    })
}

/// A variable of the environment; none where it is not set or not UTF-8.
#[must_use]
pub fn environment(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
    std::env::var(name).ok()
}

/// There is no log before the configuration says how. Nobody may be listening.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Writes the answer to `-version`, `-help` and `-config.verify`, and returns the code to end with.
fn show(text: &str) -> i32 {
    let mut out = std::io::stdout();
    match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
        Ok(()) => 0,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => BROKEN_PIPE_CODE,
        Err(error) => {
            say(&format!("cannot write the answer: {error}"));
            1
        }
    }
}

/// What a shell says of a program that whoever read its output had enough of, as `| head`: 128 and the number of SIGPIPE.
pub const BROKEN_PIPE_CODE: i32 = 141;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_none_are_named_in_a_sentence() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tempo.yaml").display().to_string();
        assert!(read_text(&file, 10).expect_err("is not there").contains("No such file"));
        assert!(read_text(&folder.path().display().to_string(), 10).expect_err("is a folder").contains("directory"));
        std::fs::write(&file, "0123456789").expect("written");
        assert_eq!(read_text(&file, 10).as_deref(), Ok("0123456789"));
        std::fs::write(&file, vec![b'x'; (1 << 20) + 1]).expect("written");
        assert_eq!(read_text(&file, 1 << 20).expect_err("is too large"), "it is larger than 1 MiB");
        std::fs::write(&file, b"a: 1\nb: \xff\xfe\n").expect("written");
        assert_eq!(read_text(&file, 100).expect_err("is no text"), "it is no text in UTF-8, see line 2");
        assert_eq!(read_text("/dev/zero", 1 << 20).expect_err("has no end"), "it is larger than 1 MiB");
        let error = read(&file, false).expect_err("is no text");
        assert_eq!(error, format!("failed to read configFile {file}: it is no text in UTF-8, see line 2"));
    }
}
