//! The configuration as people see it: what is in effect, what differs from the defaults, and the reference page of all keys,
//! which a test holds against `docs/configuration.md`.

use std::fmt::Write as _;

use serde_yaml::Value as Yaml;

use crate::value::{Effect, Value};
use crate::{
    CacheEntry, CollectorTls, Config, DedicatedColumn, DimensionMapping, FilterPolicy, Forwarder, GrpcReceiver, HttpHeader, HttpReceiver,
    KafkaConsumer, KafkaPlain, KafkaSasl, KafkaTls, Memcached, OAuth2, OtlpHttpReceiver, PolicyMatch, Redis, RelabelConfig, RemoteWrite,
    SigV4, UdpReceiver, ZipkinHttp,
};

impl Config {
    /// The effective configuration as YAML, secrets masked.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        text(&self.write())
    }

    /// What differs from the defaults, as YAML (`/status/config?mode=diff`).
    #[must_use]
    pub fn to_yaml_diff(&self) -> String {
        text(&difference(self.write(), &Self::default().write()).unwrap_or(Yaml::Mapping(serde_yaml::Mapping::new())))
    }

    /// The defaults, as YAML (`/status/config?mode=defaults`).
    #[must_use]
    pub fn defaults_yaml() -> String {
        Self::default().to_yaml()
    }
}

/// The reference of all keys: the default configuration with a line for each key, as Markdown.
#[must_use]
pub fn reference() -> String {
    let mut out = String::from(
        "# Configuration\n\n\
         Vivace reads Tempo's configuration file. This page is written from the code: it lists every key with its default.\n\
         Keys marked with `(no effect)` are accepted, with a warning, because Tempo has them. A key that is not listed is an error, \
         and so is a value of the wrong type; all errors are reported at once, with their lines.\n\n\
         - A key without a value (`grpc:`) keeps its default. In Tempo it becomes zero.\n\
         - Durations are written as `30s`, `1h30m` or `14d`; sizes are bytes.\n\
         - With `-config.expand-env=true`, `${VAR}` and `${VAR:-default}` are replaced before the file is read.\n\
         - Without a file everything runs in one process with `storage.trace.backend: local` and its data in `./vivace-data`.\n\
         - In the file named by `overrides.per_tenant_override_config`, a tenant inherits every limit it does not set from `overrides.defaults`. \
         In Tempo such limits become zero.\n\n\
         ```yaml\n",
    );
    document(&Config::default(), 0, &mut out);
    out.push_str(
        "```\n\n## Blocks that can be added\n\nReceivers and items of the lists above, with the value of each key that is left out.\n",
    );
    let items: [(&str, &dyn Value); 24] = [
        ("distributor.receivers.otlp.protocols.grpc", &GrpcReceiver::on(4317)),
        ("distributor.receivers.otlp.protocols.http", &OtlpHttpReceiver::default()),
        ("distributor.receivers.jaeger.protocols.grpc", &GrpcReceiver::on(14_250)),
        ("distributor.receivers.jaeger.protocols.thrift_http", &HttpReceiver::default()),
        ("distributor.receivers.jaeger.protocols.thrift_compact, thrift_binary", &UdpReceiver::default()),
        ("distributor.receivers.zipkin", &ZipkinHttp::default()),
        ("distributor.receivers.*.tls", &CollectorTls::default()),
        ("distributor.receivers.kafka", &KafkaConsumer::default()),
        ("distributor.receivers.kafka.tls", &KafkaTls::default()),
        ("distributor.receivers.kafka.auth.plain_text", &KafkaPlain::default()),
        ("distributor.receivers.kafka.auth.sasl", &KafkaSasl::default()),
        ("metrics_generator.storage.remote_write[]", &RemoteWrite::default()),
        ("metrics_generator.storage.remote_write[].write_relabel_configs[]", &RelabelConfig::default()),
        ("metrics_generator.storage.remote_write[].http_headers.*", &HttpHeader::default()),
        ("metrics_generator.storage.remote_write[].oauth2", &OAuth2::default()),
        ("metrics_generator.storage.remote_write[].sigv4", &SigV4::default()),
        ("parquet_dedicated_columns[]", &DedicatedColumn::default()),
        ("dimension_mappings[]", &DimensionMapping::default()),
        ("filter_policies[]", &FilterPolicy::default()),
        ("filter_policies[].include, include_any[], exclude", &PolicyMatch::default()),
        ("distributor.forwarders[]", &Forwarder::default()),
        ("cache.caches[]", &CacheEntry::default()),
        ("cache.caches[].memcached", &Memcached::default()),
        ("cache.caches[].redis", &Redis::default()),
    ];
    for (name, item) in items {
        let _ = write!(out, "\n### `{name}`\n\n```yaml\n");
        document(item, 0, &mut out);
        out.push_str("```\n");
    }
    out
}

/// Writes the keys of a block, each below the line that explains it.
fn document(block: &dyn Value, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    for field in block.fields() {
        let effect = match field.effect {
            Effect::Used => "",
            Effect::Idle => " (no effect)",
            Effect::Always => " (no effect: always on)",
            Effect::Refused => " (not supported: refused where it is set)",
        };
        let _ = writeln!(out, "{pad}# {}{effect}", field.doc.trim());
        if !field.value.fields().is_empty() {
            let _ = writeln!(out, "{pad}{}:", field.key);
            document(field.value, indent + 2, out);
            continue;
        }
        let value = field.value.write();
        let line = format!("{pad}{}: {}", field.key, inline(&value));
        if line.len() <= 140 {
            let _ = writeln!(out, "{}", line.trim_end());
        } else {
            let _ = writeln!(out, "{pad}{}:", field.key);
            lines(&value, indent + 2, out);
        }
    }
}

/// A value on several lines: one per key or item.
fn lines(value: &Yaml, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    match value {
        Yaml::Mapping(entries) => {
            for (key, value) in entries.iter().filter(|(_, value)| !value.is_null()) {
                let (key, line) = (inline(key), inline(value));
                if line.len() <= 100 {
                    let _ = writeln!(out, "{pad}{key}: {line}");
                } else {
                    let _ = writeln!(out, "{pad}{key}:");
                    lines(value, indent + 2, out);
                }
            }
        }
        Yaml::Sequence(items) => {
            for item in items {
                let _ = writeln!(out, "{pad}- {}", inline(item));
            }
        }
        scalar => {
            let _ = writeln!(out, "{pad}{}", inline(scalar));
        }
    }
}

/// A value on one line.
pub(crate) fn inline(value: &Yaml) -> String {
    match value {
        Yaml::Null => String::new(),
        Yaml::Sequence(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Yaml::Mapping(entries) => {
            let given = entries.iter().filter(|(_, value)| !value.is_null());
            format!("{{{}}}", given.map(|(key, value)| format!("{}: {}", inline(key), inline(value))).collect::<Vec<_>>().join(", "))
        }
        scalar => text(scalar).trim_end().to_owned(),
    }
}

fn text(value: &Yaml) -> String {
    serde_yaml::to_string(value).unwrap_or_default()
}

/// The part of `ours` that is not in `theirs`.
fn difference(ours: Yaml, theirs: &Yaml) -> Option<Yaml> {
    match (ours, theirs) {
        (Yaml::Mapping(ours), Yaml::Mapping(theirs)) => {
            let different: serde_yaml::Mapping = ours
                .into_iter()
                .filter_map(|(key, value)| {
                    let value = match theirs.get(&key) {
                        Some(their) => difference(value, their)?,
                        None => value,
                    };
                    Some((key, value))
                })
                .collect();
            (!different.is_empty()).then_some(Yaml::Mapping(different))
        }
        (ours, theirs) => (ours != *theirs).then_some(ours),
    }
}
