//! The crates depend on each other as the table in docs/architecture.md says, and in no other way.

use std::collections::{BTreeMap, BTreeSet};

/// Crate, and what it may use. Development dependencies are free, as long as no cycle arises.
const TABLE: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("core", &["proto"]),
    ("config", &["core"]),
    ("traceql", &["core", "proto"]),
    ("block", &["core", "proto", "traceql"]),
    ("storage", &["config", "core", "block"]),
    ("ring", &["config", "core"]),
    ("server", &["config", "core", "proto"]),
    ("distributor", &["config", "core", "proto", "ring", "server"]),
    ("ingester", &["block", "config", "core", "proto", "ring", "server", "storage", "traceql"]),
    ("querier", &["block", "config", "core", "proto", "ring", "server", "storage", "traceql"]),
    ("query-frontend", &["block", "config", "core", "proto", "server", "storage", "traceql"]),
    ("compactor", &["block", "config", "core", "ring", "server", "storage"]),
    ("metrics-generator", &["config", "core", "proto", "ring", "server"]),
    ("testkit", &["block", "core", "proto"]),
    ("fuzz", &["block", "core", "distributor", "ingester", "ring", "storage", "traceql"]),
    ("cli", &["block", "config", "core", "proto", "server", "storage", "traceql"]),
];

const SERVICES: [&str; 6] = ["distributor", "ingester", "querier", "query-frontend", "compactor", "metrics-generator"];

#[test]
fn crates_use_only_what_the_table_allows() {
    let metadata = cargo_metadata::MetadataCommand::new().no_deps().exec().expect("cargo metadata");
    let mut allowed: BTreeMap<String, BTreeSet<String>> =
        TABLE.iter().map(|(name, uses)| (format!("vivace-{name}"), uses.iter().map(|u| format!("vivace-{u}")).collect())).collect();
    let everything_below = ["config", "core", "ring", "server", "storage"].iter().chain(&SERVICES);
    allowed.insert("vivace".to_owned(), everything_below.map(|u| format!("vivace-{u}")).collect());

    let mut problems = Vec::new();
    for package in &metadata.packages {
        let name = package.name.to_string();
        let Some(allowed) = allowed.get(&name) else {
            problems.push(format!("{name} is not in the table"));
            continue;
        };
        for dependency in &package.dependencies {
            let ours = dependency.name.starts_with("vivace");
            if ours && dependency.kind == cargo_metadata::DependencyKind::Normal && !allowed.contains(&dependency.name) {
                problems.push(format!("{name} uses {}, which the table does not allow", dependency.name));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
