//! Rules of the house that no compiler knows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.expect("an entry of a folder").path()).collect()
}

/// Whoever opens a file reads first what it is for. Generated code is read by nobody.
#[test]
fn every_file_begins_with_what_it_is_for() {
    let root = root();
    let mut folders: Vec<PathBuf> = entries(&root.join("crates")).iter().map(|path| path.join("src")).collect();
    let (mut files, mut silent) = (0, BTreeSet::new());
    while let Some(folder) = folders.pop() {
        for path in entries(&folder) {
            if path.is_dir() {
                folders.extend((!path.ends_with("src/generated")).then_some(path));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                files += 1;
                if !text.starts_with("//!") {
                    silent.insert(path.strip_prefix(&root).unwrap_or(&path).display().to_string());
                }
            }
        }
    }
    assert!(files > 100, "{files} files were looked at");
    assert!(silent.is_empty(), "these begin without a line of //! that says what they are for: {silent:#?}");
}

/// Crates that stand in the build in several versions cost time and bytes; each exception has its reason in deny.toml.
#[test]
fn no_crate_stands_twice_without_a_reason() {
    let options = ["--filter-platform", "x86_64-unknown-linux-gnu"].map(str::to_owned);
    let metadata = cargo_metadata::MetadataCommand::new().other_options(options).exec().expect("cargo metadata");
    let used: BTreeSet<_> = metadata.resolve.expect("a resolved graph").nodes.into_iter().map(|node| node.id).collect();
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in metadata.packages.iter().filter(|package| used.contains(&package.id)) {
        versions.entry(package.name.to_string()).or_default().insert(package.version.to_string());
    }
    let all: BTreeSet<String> = versions.iter().flat_map(|(name, of)| of.iter().map(move |version| format!("{name}@{version}"))).collect();
    let deny = text("deny.toml");
    let skipped: BTreeSet<&str> = deny.split("crate = \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    for (name, of) in versions.iter().filter(|(_, of)| of.len() > 1) {
        let without_reason: Vec<_> = of.iter().filter(|version| !skipped.contains(format!("{name}@{version}").as_str())).collect();
        assert!(without_reason.len() < 2, "{name} stands in the build as {of:?}: give it one version, or a reason in deny.toml");
    }
    for name in skipped {
        assert!(all.contains(name), "{name} has a reason in deny.toml and is not in the build any more");
    }
}

/// The page that strangers read says the same as the test of edges.
#[test]
fn the_table_of_crates_is_that_of_the_edges() {
    let edges = text("crates/vivace-testkit/tests/edges.rs");
    let page = text("docs/architecture.md");
    let mut rows = 0;
    for line in edges.lines().filter(|line| line.trim_start().starts_with("(\"")) {
        let mut names = line.split('"').skip(1).step_by(2);
        let name = names.next().expect("a crate");
        let uses: BTreeSet<&str> = names.collect();
        let Some(row) = page.lines().find(|row| row.starts_with(&format!("| `{name}` |"))) else {
            assert_eq!(name, "fuzz", "docs/architecture.md has no row for {name}");
            continue;
        };
        let said = row.trim_end_matches(" |").rsplit(" | ").next().expect("a last cell");
        // What every crate of its kind uses stands there as dots.
        let implied = ["core", "config", "proto"];
        let listed: BTreeSet<&str> = said.split(", ").filter(|word| !matches!(*word, "–" | "…" | "libraries")).collect();
        let missing = uses.difference(&listed).filter(|of| !(said.ends_with('…') && implied.contains(of)));
        assert_eq!(listed.difference(&uses).next(), None, "{name} in docs/architecture.md");
        assert!(said == "libraries" || missing.count() == 0, "{name} in docs/architecture.md: {said}, and the edges are {uses:?}");
        rows += 1;
    }
    assert!(rows > 10, "{rows} rows were compared");
}
