//! What comments and pages point at is there: facts by their headings, files by their paths.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold nothing that people wrote, or what others wrote.
const SKIPPED: [&str; 9] = [".git", "target", ".demo", ".cache", "testdata", "corpus", "findings", "vivace-data", "__pycache__"];
/// Folders of the repository that a path in a page begins with.
const PLACES: [&str; 10] = ["crates/", "docs/", "e2e/", "scripts/", "charts/", "fuzz/", "proto/", "bench/", "docker/", "demo/"];
/// How a source begins that anybody can find by its own name.
const PUBLIC: [&str; 16] = [
    "RFC ",
    "OpenTelemetry protocol, ",
    "OTLP specification",
    "`opentelemetry/proto/",
    "googleapis `",
    "gRPC over HTTP/2, ",
    "Apache Parquet, ",
    "snappy framing format",
    "LZ4 frame format, ",
    "Prometheus remote write specification",
    "Prometheus' own default",
    "Go's `",
    "jemalloc's manual, ",
    "proc_pid_mountinfo(5)",
    "jaeger-idl `",
    "zipkin-api `",
];
const FACTS: &str = "docs/facts/";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace is there")
}

/// Files below a folder whose names end so, by their paths from it.
fn files(root: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder can be listed").flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && !SKIPPED.contains(&name.as_str()) => folders.push(path),
                Ok(kind) if kind.is_file() && endings.iter().any(|ending| name.ends_with(ending)) => {
                    found.push(path.strip_prefix(root).expect("it is below").to_owned());
                }
                _ => {}
            }
        }
    }
    found.sort();
    found
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Each comment of several lines as one text, with its first line.
fn comments(source: &str) -> Vec<(usize, String)> {
    let mut comments: Vec<(usize, String)> = Vec::new();
    let mut last = 0;
    for (number, line) in (1..).zip(source.lines()) {
        let line = line.trim_start();
        let Some(said) = ["//!", "///", "//", "#"].iter().find_map(|mark| line.strip_prefix(mark)) else { continue };
        match comments.last_mut() {
            Some((_, comment)) if last + 1 == number => {
                comment.push(' ');
                comment.push_str(said.trim());
            }
            _ => comments.push((number, said.trim().to_owned())),
        }
        last = number;
    }
    comments
}

/// The headings of a page.
fn headings(page: &str) -> BTreeSet<&str> {
    let mut in_code = false;
    let mut headings = BTreeSet::new();
    for line in page.lines() {
        in_code ^= line.starts_with("```");
        if !in_code && line.starts_with('#') {
            headings.insert(line.trim_start_matches('#').trim());
        }
    }
    headings
}

/// The texts in quotes that follow at once, divided by commas or `and`.
fn quoted(mut text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    loop {
        let next = text.strip_prefix(", \"").or_else(|| text.strip_prefix(" and \"")).and_then(|rest| rest.split_once('"'));
        let Some((heading, rest)) = next else { return found };
        found.push(heading);
        text = rest;
    }
}

/// What is wrong with the facts that a comment cites.
fn check_facts(root: &Path, comment: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for (at, _) in comment.match_indices(FACTS) {
        let rest = &comment[at..];
        let Some(end) = rest.find(".md") else {
            problems.push(format!("names no page: {rest}"));
            continue;
        };
        let (page, rest) = rest.split_at(end + ".md".len());
        let Ok(content) = fs::read_to_string(root.join(page)) else {
            problems.push(format!("there is no {page}"));
            continue;
        };
        let (headings, cited) = (headings(&content), quoted(rest));
        if cited.is_empty() {
            problems.push(format!("{page} is cited without a heading"));
        }
        problems.extend(cited.iter().filter(|heading| !headings.contains(*heading)).map(|heading| format!("{page} has no \"{heading}\"")));
    }
    problems
}

#[test]
fn every_source_can_be_opened() {
    let root = root();
    let (mut problems, mut cited) = (Vec::new(), 0);
    for path in files(&root, &[".rs", ".py", ".proto"]) {
        for (line, comment) in comments(&text(&root.join(&path))) {
            // A source is a fact of ours, or has a name that anybody can find.
            for (at, _) in comment.match_indices("Source: ") {
                let source = &comment[at + "Source: ".len()..];
                cited += 1;
                if !source.starts_with(FACTS) && !PUBLIC.iter().any(|name| source.starts_with(name)) {
                    problems.push(format!("{}:{line}: nobody can open {source}", path.display()));
                }
            }
            let wrong = check_facts(&root, &comment);
            problems.extend(wrong.into_iter().map(|problem| format!("{}:{line}: {problem}", path.display())));
        }
    }
    assert!(cited > 100, "only {cited} sources were found");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn a_wrong_citation_is_found() {
    let root = root();
    let check = |comment| check_facts(&root, comment);
    assert_eq!(check("Source: docs/facts/traceql.md, \"Values\", \"Nil\" and \"Checks\"."), [""; 0]);
    assert_eq!(check("docs/facts/traceql.md, \"Values\" and \"Vaules\""), ["docs/facts/traceql.md has no \"Vaules\""]);
    assert_eq!(check("docs/facts/nothing.md, \"Values\""), ["there is no docs/facts/nothing.md"]);
    assert_eq!(check("docs/facts/traceql.md, 7."), ["docs/facts/traceql.md is cited without a heading"]);
}

/// Whether a path with `*` in the place of a part, or of some of it, leads somewhere.
fn leads_somewhere(folder: &Path, path: &str) -> bool {
    let (part, rest) = path.split_once('/').unwrap_or((path, ""));
    let Some((start, end)) = part.split_once('*') else {
        let next = folder.join(part);
        return next.exists() && (rest.is_empty() || leads_somewhere(&next, rest));
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(start) && name.ends_with(end))).any(|entry| {
        let next = entry.path();
        rest.is_empty() || leads_somewhere(&next, rest)
    })
}

#[test]
fn pages_name_what_is_there() {
    let root = root();
    let mut problems = Vec::new();
    for page in files(&root, &[".md"]) {
        let content = text(&root.join(&page));
        let folder = root.join(&page).parent().expect("a page is in a folder").to_owned();
        for (number, line) in (1..).zip(content.lines()) {
            let links = line.match_indices("](").filter_map(|(at, _)| line[at + 2..].split_once(')')).map(|(link, _)| link);
            for link in links.filter(|link| !link.contains("://") && !link.starts_with('#')) {
                let path = link.split('#').next().unwrap_or_default();
                if !folder.join(path).exists() {
                    problems.push(format!("{}:{number}: the link {link} leads nowhere", page.display()));
                }
            }
            for named in line.split('`').skip(1).step_by(2) {
                let is_path = PLACES.iter().any(|place| named.starts_with(place)) && !named.contains([' ', '<', '…', '$']);
                if is_path && !leads_somewhere(&root, named.trim_end_matches('/')) {
                    problems.push(format!("{}:{number}: there is no {named}", page.display()));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
