//! Metrics are named in their rooms (`src/metrics.rs`) only, counted as they are declared there, and what alerts and pages say about
//! them is about metrics that exist. What exists is read from docs/metrics.md, which a test of the crate `vivace` holds to the rooms.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Words that look like metrics and are none of ours.
const OTHERS: &[(&str, &str)] = &[
    ("tempo_cluster_seed", "an object that Tempo writes into its bucket"),
    ("tempo_querier_worker_request_executed_total", "Tempo's; a fact of the page, and not counted here"),
    ("vivace_core", "a crate"),
    ("vivace_storage", "a crate"),
];

const STARTS: [&str; 6] = ["tempo_", "tempodb_", "vivace_", "process_", "go_", "prometheus_remote_storage_"];

/// What counts, in the code and in the declarations.
const KINDS: [&str; 3] = ["counter", "gauge", "histogram"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files below a folder whose names end so.
fn files(folder: &Path, ends: &[&str], found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            files(&path, ends, found);
        } else if path.extension().and_then(|e| e.to_str()).is_some_and(|end| ends.contains(&end)) {
            found.push(path);
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Metric {
    name: String,
    kind: String,
    labels: BTreeSet<String>,
}

/// All metrics, from the page.
fn listed() -> Vec<Metric> {
    let page = text(&root().join("docs/metrics.md"));
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split(" | ").collect();
        let labels = cells[2].split(", ").map(|label| label.trim_matches('`').to_owned()).filter(|label| !label.is_empty()).collect();
        Metric { name: cells[0].trim_end_matches('`').to_owned(), kind: cells[1].to_owned(), labels }
    })
    .collect()
}

/// The constants of a room: `counter CONSTANT = "name" …;`
fn room(text: &str) -> BTreeMap<&str, &str> {
    let declared = text.lines().filter_map(|line| {
        let (kind, rest) = line.trim_start().split_once(' ')?;
        let (constant, rest) = rest.split_once(" = \"")?;
        KINDS.contains(&kind).then_some((constant, rest.split('"').next()?))
    });
    declared.collect()
}

/// Words of a text that start as metrics do.
fn words(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = BTreeSet::new();
    for word in
        text.split(|c: char| !is_part(c)).filter(|word| STARTS.iter().any(|start| word.len() > start.len() && word.starts_with(start)))
    {
        found.insert(word.to_owned());
    }
    found
}

/// The code of a source file without its comments and its tests.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// What stands between the parenthesis that a text begins behind and the one that closes it.
fn arguments(text: &str) -> &str {
    let mut depth = 1;
    let end = text.find(|c| {
        depth += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        depth == 0
    });
    &text[..end.unwrap_or(text.len())]
}

/// Names of the labels that stand in a call; not the arms of a `match` in it.
fn labels(call: &str) -> BTreeSet<String> {
    let parts: Vec<&str> = call.split("\" =>").collect();
    let before = &parts[..parts.len() - 1];
    before.iter().filter(|part| !part.contains("match ")).filter_map(|part| part.rsplit('"').next()).map(str::to_owned).collect()
}

#[test]
fn metrics_are_named_in_their_rooms_and_counted_as_declared() {
    let listed = listed();
    assert!(listed.len() > 100, "{} metrics are listed", listed.len());
    let names: BTreeSet<&str> = listed.iter().map(|metric| metric.name.as_str()).collect();
    let mut problems = Vec::new();
    let mut counted = 0;
    for folder in std::fs::read_dir(root().join("crates")).expect("crates").map(|entry| entry.expect("an entry").path()) {
        let declared = std::fs::read_to_string(folder.join("src/metrics.rs")).unwrap_or_default();
        let room = room(&declared);
        let mut sources = Vec::new();
        files(&folder.join("src"), &["rs"], &mut sources);
        let mut all_code = String::new();
        for path in sources.iter().filter(|path| !path.ends_with("tests.rs") && !path.ends_with("generated")) {
            let is_room = path.ends_with("src/metrics.rs");
            let text = text(path);
            // What a room declares is no use of it.
            let code = code(if is_room { text.split_once("\n}\n").map_or("", |(_, rest)| rest) } else { &text });
            let shown = path.strip_prefix(root()).unwrap_or(path).display().to_string();
            for name in code.split('"').filter(|literal| names.contains(literal)) {
                problems.push(format!("{shown}: {name} stands there as a literal; it has a constant in the crate's metrics.rs"));
            }
            for kind in KINDS {
                for call in code.split(&format!("metrics::{kind}!(")).skip(1).map(arguments) {
                    let first = call.split(',').next().unwrap_or_default().trim();
                    if first.starts_with('"') {
                        problems.push(format!("{shown}: {first} is counted and has no constant in the crate's metrics.rs"));
                        continue;
                    }
                    let constant = first.trim_end_matches(".name");
                    let Some(metric) = room.get(constant).and_then(|name| listed.iter().find(|metric| metric.name == *name)) else {
                        continue;
                    };
                    counted += 1;
                    if metric.kind != kind {
                        problems.push(format!("{shown}: {constant} is counted as a {kind} and is a {}", metric.kind));
                    }
                    let given = labels(call);
                    if !call.contains('&') && given != metric.labels {
                        problems.push(format!("{shown}: {constant} is counted with the labels {given:?} and has {:?}", metric.labels));
                    }
                }
            }
            all_code.push_str(&code);
        }
        let words: BTreeSet<&str> = all_code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
        for constant in room.keys().filter(|constant| !words.contains(**constant)) {
            problems.push(format!("{}: {constant} is declared and nothing counts it", folder.display()));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(counted > 90, "{counted} places that count were understood");
}

#[test]
fn alerts_and_pages_name_metrics_that_exist() {
    let listed = listed();
    let mut known: BTreeSet<String> = listed.iter().map(|metric| metric.name.clone()).collect();
    for metric in listed.iter().filter(|metric| metric.kind == "histogram") {
        known.extend(["bucket", "sum", "count"].map(|series| format!("{}_{series}", metric.name)));
    }
    known.extend(OTHERS.iter().map(|(word, _)| (*word).to_owned()));
    let mut pages = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    files(&root().join("docs"), &["md"], &mut pages);
    files(&root().join("charts"), &["md", "yaml", "tpl", "json", "txt"], &mut pages);
    files(&root().join("docker"), &["md", "yaml", "json"], &mut pages);
    files(&root().join("demo"), &["md", "yaml", "json", "py"], &mut pages);
    let (mut problems, mut named) = (Vec::new(), BTreeSet::new());
    for path in &pages {
        for word in words(&text(path)) {
            if !known.contains(&word) {
                problems.push(format!("{}: there is no metric {word}", path.display()));
            }
            named.insert(word);
        }
    }
    // Also what does not start as ours do: in an alert a metric is what stands before its selector.
    let alerts = text(&root().join("charts/vivace-distributed/files/alerts.yaml"));
    for (before, _) in alerts.match_indices('{').map(|(at, _)| alerts.split_at(at)) {
        let metric = before.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
        if !metric.is_empty() && !known.contains(metric) {
            problems.push(format!("alerts.yaml: there is no metric {metric}"));
        }
    }
    for (word, reason) in OTHERS.iter().filter(|(word, _)| !named.contains(*word)) {
        problems.push(format!("{word} is excepted ({reason}) and named nowhere"));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
