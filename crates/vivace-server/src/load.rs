//! From the command line and the file it names to a checked configuration.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::exit;
use std::sync::OnceLock;

use vivace_config::flags::Flags;
use vivace_config::{Config, Target, Warning, WarningKind};

use crate::build;

/// `-config.expand-env`: also holds for the per-tenant file, which is read again while the process runs.
static EXPAND_ENV: OnceLock<bool> = OnceLock::new();

/// The configuration of this process from its arguments, the program's name first.
///
/// Ends the process where there is nothing to run: code 0 after `-version`, `-help` and a `-config.verify` without remarks,
/// 1 for a file that is missing or wrong and a `-config.verify` with remarks, 2 for a flag that does not exist.
/// Every problem is said on standard error, all at once. Warnings are said there too, and logged by nobody again.
///
/// Source: configuration facts, 1 and 2.
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
        Outcome::End { code, text } if code == 0 => {
            show(&text);
            exit(code)
        }
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
        Ok((_, warnings)) if flags.verify => {
            let failed = warnings.iter().any(|warning| warning.kind == WarningKind::Advice);
            let mut text: String = warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
            text.push_str(if failed { "the configuration has warnings" } else { "the configuration is valid" });
            Outcome::End { code: i32::from(failed), text }
        }
        Ok((config, warnings)) => Outcome::Run(Box::new(config), warnings),
    }
}

/// A file's text with the environment's variables in it, where the command line asks for that.
///
/// # Errors
/// What is wrong, for people.
pub(crate) fn read_expanded(file: &str) -> Result<String, String> {
    read(file, EXPAND_ENV.get().copied().unwrap_or(false))
}

fn read(file: &str, expand_env: bool) -> Result<String, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("failed to read configFile {file}: {error}"))?;
    if !expand_env {
        return Ok(text);
    }
    vivace_config::expand(&text, &environment).map_err(|error| format!("{file}: {error}"))
}

/// A variable of the environment; none where it is not set or not UTF-8.
#[must_use]
pub fn environment(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
    std::env::var(name).ok()
}

#[expect(clippy::print_stderr, reason = "there is no log before the configuration says how")]
fn say(text: &str) {
    eprintln!("{text}");
}

#[expect(clippy::print_stdout, reason = "the answer to -version and -help")]
fn show(text: &str) {
    println!("{}", text.trim_end());
}
