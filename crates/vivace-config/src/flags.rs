//! The command line, in Go's form: `-a=b`, `-a b`, `--a=b`, bare booleans.

use std::fmt::Write as _;

use serde_yaml::Value as Yaml;

use crate::error::{WarningKind, quoted};
use crate::node::{Node, Position};
use crate::reader::Reader;
use crate::value::{Effect, Value};
use crate::{Config, suggest};

/// Flags of Tempo whose names do not follow from their keys, with those keys.
const FLAGS: &[(&str, &str)] = &[
    ("target", "target"),
    ("auth.enabled", "auth_enabled"),
    ("multitenancy.enabled", "multitenancy_enabled"),
    ("http-api-prefix", "http_api_prefix"),
    ("shutdown-delay", "shutdown_delay"),
    ("memory.limit", "memory.limit"),
    ("enable-go-runtime-metrics", "enable_go_runtime_metrics"),
    ("log.level", "server.log_level"),
    ("log.format", "server.log_format"),
    ("server.http-listen-port", "server.http_listen_port"),
    ("server.grpc-listen-port", "server.grpc_listen_port"),
    ("memberlist.bind-port", "memberlist.bind_port"),
    ("memberlist.message-history-buffer-bytes", "memberlist.message_history_buffer_bytes"),
    ("storage.trace.backend", "storage.trace.backend"),
    ("storage.trace.local.path", "storage.trace.local.path"),
    ("storage.trace.wal.path", "storage.trace.wal.path"),
    ("storage.trace.blocklist_poll", "storage.trace.blocklist_poll"),
    ("storage.trace.s3.bucket", "storage.trace.s3.bucket"),
    ("storage.trace.s3.endpoint", "storage.trace.s3.endpoint"),
    ("storage.trace.s3.access_key", "storage.trace.s3.access_key"),
    ("storage.trace.s3.secret_key", "storage.trace.s3.secret_key"),
    ("storage.trace.gcs.bucket", "storage.trace.gcs.bucket_name"),
    ("storage.trace.azure.endpoint", "storage.trace.azure.endpoint_suffix"),
    ("ingester.max-block-duration", "ingester.max_block_duration"),
    ("ingester.max-block-bytes", "ingester.max_block_bytes"),
    ("ingester.complete-block-timeout", "ingester.complete_block_timeout"),
    ("ingester.availability-zone", "ingester.lifecycler.availability_zone"),
    ("distributor.rate-limit-strategy", "overrides.defaults.ingestion.rate_strategy"),
    ("distributor.ingestion-rate-limit-bytes", "overrides.defaults.ingestion.rate_limit_bytes"),
    ("distributor.ingestion-burst-size-bytes", "overrides.defaults.ingestion.burst_size_bytes"),
    ("ingester.max-traces-per-user", "overrides.defaults.ingestion.max_traces_per_user"),
    ("ingester.max-global-traces-per-user", "overrides.defaults.ingestion.max_global_traces_per_user"),
    ("ingester.max-bytes-per-trace", "overrides.defaults.global.max_bytes_per_trace"),
    ("querier.max-bytes-per-tag-values-query", "overrides.defaults.read.max_bytes_per_tag_values_query"),
    ("querier.max-blocks-per-tag-values-query", "overrides.defaults.read.max_blocks_per_tag_values_query"),
    ("querier.frontend-address", "querier.frontend_worker.frontend_address"),
    ("compactor.disabled", "compactor.disabled"),
    ("compactor.compaction.compaction.block-retention", "compactor.compaction.block_retention"),
    ("compactor.compaction.compaction.compaction-window", "compactor.compaction.compaction_window"),
    ("compactor.compaction.compaction.max-block-bytes", "compactor.compaction.max_block_bytes"),
    ("compactor.compaction.compaction.max-objects-per-block", "compactor.compaction.max_compaction_objects"),
    ("compactor.compaction.max-objects-per-block", "compactor.compaction.max_compaction_objects"),
    ("distributor.log-received-spans.include-attributes", "distributor.log_received_spans.include_all_attributes"),
    ("distributor.log-discarded-spans.include-attributes", "distributor.log_discarded_spans.include_all_attributes"),
    ("config.per-user-override-config", "overrides.per_tenant_override_config"),
    ("config.per-user-override-period", "overrides.per_tenant_override_period"),
    ("config.enable-legacy-overrides", "overrides.enable_legacy_overrides"),
    ("reporting.enabled", "usage_report.reporting_enabled"),
    ("metrics-generator.native-histogram-bucket-factor", "overrides.defaults.metrics_generator.native_histogram_bucket_factor"),
    ("metrics-generator.native-histogram-max-bucket-number", "overrides.defaults.metrics_generator.native_histogram_max_bucket_number"),
    ("metrics-generator.native-histogram-min-reset-duration", "overrides.defaults.metrics_generator.native_histogram_min_reset_duration"),
];

/// Flags of Tempo that change nothing here, and whether they take a value.
const IDLE: &[(&str, bool)] = &[
    ("mem-ballast-size-mbs", true),
    ("mutex-profile-fraction", true),
    ("block-profile-threshold", true),
    ("search.enabled", false),
    ("metrics-generator.enabled", false),
    ("use-otel-tracer", false),
    ("distributor.log-received-traces", false),
];

/// First words of flags of Kafka installations, and parts of those of other ring stores; they change nothing here.
const IDLE_GROUPS: &[&str] =
    &["backend-scheduler", "backend-worker", "block-builder", "live-store", "ingest.", "generator", "reporting.backoff"];

/// A parsed command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `-config.file`: the file to read.
    pub config_file: Option<String>,
    /// `-config.expand-env`: whether `${..}` in files is replaced.
    pub expand_env: bool,
    /// `-config.verify`: only check the configuration; fail on errors and on advice.
    pub verify: bool,
    /// `-version`: only say which version this is.
    pub version: bool,
    /// `-help`: only say which flags there are.
    pub help: bool,
    /// Flags that set keys, in order.
    settings: Vec<Setting>,
    /// What is no flag; nothing is done with it.
    stray: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    flag: String,
    /// Path of the key; empty for a flag without effect.
    path: String,
    value: String,
}

/// A command line that cannot be understood. The process ends with status 2.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(String);

impl Flags {
    /// Reads a command line, without the program's name.
    ///
    /// # Errors
    /// For an unknown flag, and a flag without its value.
    pub fn parse<A: AsRef<str>>(args: impl IntoIterator<Item = A>) -> Result<Self, UsageError> {
        let args: Vec<String> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        let mut flags = Self::default();
        let mut rest = args.iter().map(String::as_str).peekable();
        while let Some(arg) = rest.next() {
            let Some(flag) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')).filter(|flag| !flag.is_empty()) else {
                flags.stray.push(arg.to_owned());
                continue;
            };
            let (name, given) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
            let known = find(name).ok_or_else(|| UsageError(unknown(name)))?;
            let value = match (given, known.is_switch) {
                (Some(value), _) => value,
                (None, true) => rest.next_if(|next| matches!(*next, "true" | "false")).unwrap_or("true"),
                (None, false) => rest.next().ok_or_else(|| UsageError(format!("flag needs an argument: -{name}")))?,
            };
            let switch = || switch(name, value);
            match name {
                "config.file" => flags.config_file = Some(value.to_owned()),
                "config.expand-env" => flags.expand_env = switch()?,
                "config.verify" => flags.verify = switch()?,
                "version" => flags.version = switch()?,
                "h" | "help" => flags.help = switch()?,
                _ => flags.settings.push(Setting { flag: name.to_owned(), path: known.path, value: value.to_owned() }),
            }
        }
        Ok(flags)
    }

    /// What `-help` prints: flags, meanings and defaults.
    #[must_use]
    pub fn usage(program: &str) -> String {
        let mut out = format!("Usage of {program}:\n");
        for (flag, meaning) in [
            ("config.file", "Configuration file, YAML. Without one everything is stored in ./vivace-data."),
            ("config.expand-env", "Replace ${VAR} and ${VAR:-default} in that file. (default false)"),
            ("config.verify", "Check the configuration and stop. (default false)"),
            ("version", "Print the version and stop. (default false)"),
        ] {
            let _ = writeln!(out, "  -{flag}\n    \t{meaning}");
        }
        let mut config = Config::default();
        for (flag, path) in FLAGS {
            let Some((_, value)) = descend(&mut config, path) else { continue };
            let default = crate::render::inline(&value.write());
            let _ = writeln!(out, "  -{flag}\n    \tKey {path}. (default {default})");
        }
        out.push_str("  -memberlist.host-port\n    \tAdds to key memberlist.join_members; may be given several times.\n");
        out.push_str("Any other key is a flag too: its path with dashes for underscores, such as -ingester.concurrent-flushes=2.\n");
        out
    }

    /// Sets the keys that flags name.
    pub(crate) fn apply(&self, config: &mut Config, reader: &mut Reader) {
        for arg in &self.stray {
            let message = format!("argument {} is ignored: everything is set by flags, such as -config.file=tempo.yaml", quoted(arg));
            reader.warn(WarningKind::NoEffect, Position::default(), message);
        }
        for Setting { flag, path, value } in &self.settings {
            let node = Node::plain(value);
            reader.within(&format!("-{flag}"), |reader| {
                if flag == "memberlist.host-port" {
                    config.memberlist.join_members.push(value.clone());
                    return;
                }
                match descend(config, path) {
                    Some((effect, target)) => reader.set(&node, Position::default(), effect, target),
                    None => reader.warn(WarningKind::NoEffect, Position::default(), gone(flag)),
                }
            });
        }
    }
}

/// What is said of a flag that has no key.
fn gone(flag: &str) -> String {
    let why = match flag {
        "distributor.log-received-traces" => ": removed in Tempo 2.1; use -distributor.log-received-spans.enabled",
        "search.enabled" => ": removed in Tempo 2.0, search is always on; remove it",
        "metrics-generator.enabled" => ": removed in Tempo 2.0; set -metrics-generator.storage.path, which switches the generator on",
        "use-otel-tracer" => ": removed in Tempo 2.7; remove it",
        _ => " in Vivace",
    };
    format!("accepted, without effect{why}")
}

/// A known flag.
struct Known {
    path: String,
    is_switch: bool,
}

fn find(name: &str) -> Option<Known> {
    if matches!(name, "config.expand-env" | "config.verify" | "version" | "h" | "help") {
        return Some(Known { path: String::new(), is_switch: true });
    }
    if matches!(name, "config.file" | "memberlist.host-port") {
        return Some(Known { path: String::new(), is_switch: false });
    }
    if let Some((_, takes_value)) = IDLE.iter().find(|(flag, _)| *flag == name) {
        return Some(Known { path: String::new(), is_switch: !takes_value });
    }
    let path = FLAGS.iter().find(|(flag, _)| *flag == name).map_or_else(|| name.replace('-', "_"), |(_, path)| (*path).to_owned());
    let mut config = Config::default();
    if let Some((_, value)) = descend(&mut config, &path) {
        // A block cannot be set on the command line.
        return value.fields().is_empty().then(|| Known { is_switch: matches!(value.write(), Yaml::Bool(_)), path });
    }
    let group =
        IDLE_GROUPS.iter().any(|group| name.starts_with(group)) || [".consul.", ".etcd.", ".multi."].iter().any(|part| name.contains(part));
    group.then(|| Known { path: String::new(), is_switch: name.ends_with("enabled") })
}

fn switch(name: &str, value: &str) -> Result<bool, UsageError> {
    match value {
        "true" | "True" | "TRUE" | "t" | "T" | "1" => Ok(true),
        "false" | "False" | "FALSE" | "f" | "F" | "0" => Ok(false),
        _ => Err(UsageError(format!("invalid value {value:?} for flag -{name}: expected true or false"))),
    }
}

fn unknown(name: &str) -> String {
    let mut known: Vec<&str> = FLAGS.iter().map(|(flag, _)| *flag).collect();
    known.extend(["config.file", "config.expand-env", "config.verify", "version", "help", "memberlist.host-port"]);
    let near = suggest::nearest(name, &known).map(|near| format!("; did you mean -{near}?")).unwrap_or_default();
    format!("flag provided but not defined: -{name}{near}")
}

/// Finds the value at a path, and what it does to set it.
pub(crate) fn descend<'v>(value: &'v mut dyn Value, path: &str) -> Option<(Effect, &'v mut dyn Value)> {
    let (head, rest) = path.split_once('.').map_or((path, None), |(head, rest)| (head, Some(rest)));
    let (effect, child) = value.child(head)?;
    match rest {
        None => Some((effect, child)),
        Some(rest) => descend(child, rest).map(|(inner, value)| (if effect == Effect::Used { inner } else { effect }, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_names_a_key() {
        let mut config = Config::default();
        for (flag, path) in FLAGS {
            assert!(descend(&mut config, path).is_some(), "-{flag} names {path}");
        }
    }
}
