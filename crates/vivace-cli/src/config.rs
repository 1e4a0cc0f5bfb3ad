//! Checks files with the code that a process reads them with, so that both say the same. Nothing is started and no bucket is
//! opened. Files that the configuration names may be on another machine: what is wrong with them is a remark.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::Subcommand;
use vivace_config::flags::Flags;
use vivace_config::{Config, Overrides, Warning, WarningKind, expand};

use crate::text::count;

/// Check configuration files.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check a file: all that is wrong, and all that has no effect.
    Check {
        /// The file, as given to -config.file.
        file: PathBuf,
        /// Replace ${VAR} as -config.expand-env does.
        #[arg(long)]
        expand_env: bool,
        /// Flags that the process is started with, such as -target=ingester.
        #[arg(last = true)]
        flags: Vec<String>,
    },
    /// Check a file of limits per tenant (overrides.per_tenant_override_config).
    CheckOverrides {
        /// The file.
        file: PathBuf,
        /// Replace ${VAR} as -config.expand-env does.
        #[arg(long)]
        expand_env: bool,
    },
}

pub(crate) fn run(command: Command) -> anyhow::Result<String> {
    match command {
        Command::Check { file, expand_env, flags } => {
            let flags = Flags::parse(&flags).context("the flags after --")?;
            let text = read(&file, expand_env)?;
            match Config::load(Some((&text, &file.to_string_lossy())), &flags) {
                Ok((config, mut warnings)) => {
                    warnings.extend(files(&config));
                    Ok(report(&file, &warnings))
                }
                Err(errors) => bail!("{errors}"),
            }
        }
        Command::CheckOverrides { file, expand_env } => {
            let text = read(&file, expand_env)?;
            match Overrides::parse(&Config::default().overrides.defaults, &text, &file.to_string_lossy()) {
                Ok((_, warnings)) => Ok(report(&file, &warnings)),
                Err(errors) => bail!("{errors}"),
            }
        }
    }
}

/// What there is to say of the files that a configuration names.
fn files(config: &Config) -> Vec<Warning> {
    vivace_server::verify(config).unwrap_or_else(|why| {
        let message = format!("a start would fail on this machine: {why}");
        vec![Warning { kind: WarningKind::Advice, path: String::new(), line: 0, message }]
    })
}

/// Neither kind of file may be larger than what a process takes for its limits.
const BYTES_MAX: u64 = 64 << 20;

fn read(file: &Path, expand_env: bool) -> anyhow::Result<String> {
    let name = file.to_string_lossy();
    let text = vivace_server::read_text(&name, BYTES_MAX).map_err(|reason| anyhow!("cannot read {name}: {reason}"))?;
    if !expand_env {
        return Ok(text);
    }
    Ok(expand(&text, &vivace_server::environment)?)
}

fn report(file: &Path, warnings: &[Warning]) -> String {
    let mut out = String::new();
    for (kind, title) in [(WarningKind::Advice, "Worth a look"), (WarningKind::NoEffect, "Without effect")] {
        let of_kind: Vec<&Warning> = warnings.iter().filter(|warning| warning.kind == kind).collect();
        if of_kind.is_empty() {
            continue;
        }
        let _ = writeln!(out, "{title}:");
        for warning in of_kind {
            let _ = writeln!(out, "  {warning}");
        }
    }
    let remarks = if warnings.is_empty() { String::new() } else { format!(", with {}", count(warnings.len() as u64, "remark")) };
    let _ = writeln!(out, "{} is valid{remarks}", file.display());
    out
}
