//! The `overrides` block and the file with limits per tenant, both in Tempo's newer form and in its flat one. What a tenant
//! leaves out it has from the defaults; in Tempo it would be zero.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_yaml::Value as Yaml;
use vivace_core::TenantId;

use crate::error::{ConfigErrors, Warning, WarningKind};
use crate::limits::{flat_names, flat_path};
use crate::node::{self, Node};
use crate::reader::{Entry, Reader};
use crate::section::section;
use crate::value::{Effect, Field, Value, default, mins, secs, write_fields};
use crate::{Azure, Backend, Gcs, Limits, LocalBackend, S3, suggest};

/// `overrides`: limits of tenants. Tempo's older, flat form is understood too.
#[derive(Clone, Debug, PartialEq)]
pub struct OverridesConfig {
    /// Limits of every tenant that has none of its own.
    pub defaults: Limits,
    /// File with limits per tenant; empty is none.
    pub per_tenant_override_config: String,
    /// Pause between looks at that file.
    pub per_tenant_override_period: Duration,
    /// Limits that tenants set themselves over the API.
    pub user_configurable_overrides: UserConfigurableOverrides,
    /// 3.x: whether the flat form is accepted; it always is.
    pub enable_legacy_overrides: bool,
}

impl Default for OverridesConfig {
    fn default() -> Self {
        Self {
            defaults: Limits::default(),
            per_tenant_override_config: String::new(),
            per_tenant_override_period: secs(10),
            user_configurable_overrides: UserConfigurableOverrides::default(),
            enable_legacy_overrides: false,
        }
    }
}

section! {
    /// `overrides.user_configurable_overrides`: limits that tenants set themselves over the API.
    pub struct UserConfigurableOverrides {
        /// Whether there is such an API.
        used enabled: bool = false;
        /// Pause between looks for changes.
        used poll_interval: Duration = mins(1);
        /// Where the limits are stored.
        used client: OverridesClient = default();
        /// The API.
        used api: OverridesApi = default();
    }
}

section! {
    /// `overrides.user_configurable_overrides.client`: where the limits are stored.
    pub struct OverridesClient {
        /// Kind of the store.
        used backend: Backend = default();
        /// Whether a bucket without versions is refused.
        used confirm_versioning: bool = true;
        /// Backend `local`.
        used local: LocalBackend = default();
        /// Backend `s3`.
        used s3: S3 = default();
        /// Backend `gcs`.
        used gcs: Gcs = default();
        /// Backend `azure`.
        used azure: Azure = default();
    }
}

section! {
    /// `overrides.user_configurable_overrides.api`.
    pub struct OverridesApi {
        /// Whether a tenant's first change is refused when the file sets limits too.
        used check_for_conflicting_runtime_overrides: bool = false;
    }
}

const KEYS: [&str; 5] =
    ["defaults", "per_tenant_override_config", "per_tenant_override_period", "user_configurable_overrides", "enable_legacy_overrides"];

impl Value for OverridesConfig {
    fn read(&mut self, node: &Node, reader: &mut Reader) {
        let entries = reader.entries(node, &KEYS);
        let (mut scoped, mut flat) = (None, vec![]);
        for entry in &entries {
            match entry.key.as_str() {
                "defaults" => {
                    scoped = Some(entry.at.line);
                    reader.field(entry, Effect::Used, &mut DefaultLimits(&mut self.defaults));
                }
                key if removed(key).is_some() => reader.dropped(entry, removed(key).unwrap_or_default()),
                key => match self.child(key).map(|(effect, _)| effect) {
                    Some(effect) => {
                        if let Some((_, value)) = self.child(key) {
                            reader.field(entry, effect, value);
                        }
                    }
                    None => {
                        if read_flat(&mut self.defaults, entry, reader) {
                            flat.push(entry);
                        } else {
                            unknown_limit(entry, &KEYS, reader);
                        }
                    }
                },
            }
        }
        if let (Some(line), Some(entry)) = (scoped, flat.first()) {
            let message = format!("limits are set here and under defaults in line {line}; move all of them to defaults");
            reader.within(&entry.key, |reader| reader.problem(entry.value, message));
        } else if let Some(entry) = flat.first() {
            reader.warn(
                WarningKind::Advice,
                entry.at,
                format!("limits directly in this block are Tempo's older form; move {} keys to defaults", flat.len()),
            );
        }
    }

    fn write(&self) -> Yaml {
        write_fields(self)
    }

    fn fields(&self) -> Vec<Field<'_>> {
        vec![
            Field {
                key: "defaults",
                doc: " Limits of every tenant that has none of its own.",
                effect: Effect::Used,
                value: &self.defaults,
            },
            Field {
                key: "per_tenant_override_config",
                doc: " File with limits per tenant; what a tenant does not set there is taken from `defaults`.",
                effect: Effect::Used,
                value: &self.per_tenant_override_config,
            },
            Field {
                key: "per_tenant_override_period",
                doc: " Pause between looks at that file.",
                effect: Effect::Used,
                value: &self.per_tenant_override_period,
            },
            Field {
                key: "user_configurable_overrides",
                doc: " Limits that tenants set themselves over the API.",
                effect: Effect::Idle,
                value: &self.user_configurable_overrides,
            },
            Field {
                key: "enable_legacy_overrides",
                doc: " Whether the older, flat form is accepted (3.x); it always is.",
                effect: Effect::Always,
                value: &self.enable_legacy_overrides,
            },
        ]
    }

    fn child(&mut self, key: &str) -> Option<(Effect, &mut dyn Value)> {
        match key {
            "defaults" => Some((Effect::Used, &mut self.defaults)),
            "per_tenant_override_config" => Some((Effect::Used, &mut self.per_tenant_override_config)),
            "per_tenant_override_period" => Some((Effect::Used, &mut self.per_tenant_override_period)),
            "user_configurable_overrides" => Some((Effect::Idle, &mut self.user_configurable_overrides)),
            "enable_legacy_overrides" => Some((Effect::Always, &mut self.enable_legacy_overrides)),
            _ => None,
        }
    }
}

/// What became of a limit of Tempo 1.x; none for a key that is not one.
fn removed(key: &str) -> Option<&'static str> {
    Some(match key {
        "search_tags_allow_list" => "removed in Tempo 2.0, every attribute is searchable; remove it",
        "max_search_bytes_per_trace" => "removed in Tempo 2.0; remove it",
        "max_spans_per_trace" => "removed in Tempo 1.x; set max_bytes_per_trace",
        "ingestion_rate_limit" => "removed in Tempo 1.x; set ingestion_rate_limit_bytes",
        "ingestion_burst_size" => "removed in Tempo 1.x; set ingestion_burst_size_bytes",
        _ => return None,
    })
}

/// Limits in either form.
struct DefaultLimits<'l>(&'l mut Limits);

impl Value for DefaultLimits<'_> {
    fn read(&mut self, node: &Node, reader: &mut Reader) {
        read_limits(self.0, node, reader);
    }

    fn write(&self) -> Yaml {
        self.0.write()
    }
}

/// Reads limits over others: what is not said stays as it is.
fn read_limits(limits: &mut Limits, node: &Node, reader: &mut Reader) {
    let known: Vec<&str> = Limits::default().fields().iter().map(|field| field.key).collect();
    for entry in reader.entries(node, &known) {
        match limits.child(&entry.key) {
            Some((effect, value)) => reader.field(&entry, effect, value),
            None => {
                if let Some(why) = removed(&entry.key) {
                    reader.dropped(&entry, why);
                } else if !read_flat(limits, &entry, reader) {
                    unknown_limit(&entry, &known, reader);
                }
            }
        }
    }
}

/// Refuses a key; perhaps it was meant to be a limit in the flat form.
fn unknown_limit(entry: &Entry<'_>, known: &[&str], reader: &mut Reader) {
    if reader.problems.are_enough() {
        return reader.unknown(entry, known);
    }
    let flat = flat_names();
    match suggest::nearest(&entry.key, &flat.iter().map(String::as_str).collect::<Vec<_>>()) {
        Some(near) => reader.unknown(entry, &[near]),
        None => reader.unknown(entry, known),
    }
}

/// Reads one limit in the flat form; false if there is none of that name.
fn read_flat(limits: &mut Limits, entry: &Entry<'_>, reader: &mut Reader) -> bool {
    if let ("forwarders" | "cost_attribution", Some((effect, value))) = (entry.key.as_str(), limits.child(&entry.key)) {
        reader.field(entry, effect, value);
        return true;
    }
    let Some(path) = flat_path(&entry.key) else { return false };
    match crate::flags::descend(limits, &path) {
        Some((effect, value)) => {
            reader.field(entry, effect, value);
            true
        }
        None => false,
    }
}

/// The limits of all tenants: the defaults, and what the per-tenant file says on top.
///
/// A tenant that the file does not name has the file's `"*"` entry, if there is one, else the defaults.
/// An entry inherits every key that it leaves out from the defaults (in Tempo such keys become zero).
#[derive(Clone, Debug)]
pub struct Overrides {
    defaults: Arc<Limits>,
    wildcard: Option<Arc<Limits>>,
    tenants: HashMap<TenantId, Arc<Limits>>,
}

impl Overrides {
    /// Every tenant has the defaults.
    #[must_use]
    pub fn new(defaults: Limits) -> Self {
        Self { defaults: Arc::new(defaults), wildcard: None, tenants: HashMap::new() }
    }

    /// Reads the content of a per-tenant file over the defaults. Its text must be expanded already.
    ///
    /// # Errors
    /// Everything that is wrong with it, with lines.
    pub fn parse(defaults: &Limits, yaml: &str, source: &str) -> Result<(Self, Vec<Warning>), ConfigErrors> {
        let mut overrides = Self::new(defaults.clone());
        let mut reader = Reader::new();
        let node = node::parse(yaml, &mut reader).unwrap_or_else(Node::null);
        for entry in reader.entries(&node, &["overrides"]) {
            if entry.key != "overrides" {
                reader.unknown(&entry, &["overrides"]);
                continue;
            }
            reader.within("overrides", |reader| {
                for tenant in reader.entries(entry.value, &[]) {
                    let mut limits = defaults.clone();
                    reader.field(&tenant, Effect::Used, &mut DefaultLimits(&mut limits));
                    limits.ingestion.rate_strategy = defaults.ingestion.rate_strategy;
                    let path = format!("overrides.{}", tenant.key);
                    crate::check::limits(&limits, &path, reader);
                    if tenant.key == "*" {
                        overrides.wildcard = Some(Arc::new(limits));
                        continue;
                    }
                    match TenantId::new(&tenant.key) {
                        Ok(id) => drop(overrides.tenants.insert(id, Arc::new(limits))),
                        Err(error) => reader.problem_at(&path, error.to_string()),
                    }
                }
            });
        }
        crate::finish(reader, source).map(|warnings| (overrides, warnings))
    }

    /// The limits of a tenant.
    #[must_use]
    pub fn limits(&self, tenant: &TenantId) -> Arc<Limits> {
        self.tenants.get(tenant).or(self.wildcard.as_ref()).unwrap_or(&self.defaults).clone()
    }

    /// The limits of tenants without any of their own.
    #[must_use]
    pub fn defaults(&self) -> Arc<Limits> {
        self.defaults.clone()
    }

    /// The tenants that the file names, sorted.
    #[must_use]
    pub fn tenants(&self) -> Vec<TenantId> {
        let mut tenants: Vec<_> = self.tenants.keys().cloned().collect();
        tenants.sort();
        tenants
    }
}

impl Limits {
    /// The limits as YAML, secrets masked.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        serde_yaml::to_string(&self.write()).unwrap_or_default()
    }
}
