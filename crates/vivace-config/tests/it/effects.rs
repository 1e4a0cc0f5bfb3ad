//! Whether the marks of keys are true. Clippy sees to one half: fields that are not `used` are deprecated outside this crate. The
//! other half is here: what is `used` must occur there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What `check` and `Config` themselves make of a key; nobody else needs to read it.
const WITHIN: [(&str, &str); 6] = [
    ("Config", "auth_enabled"),
    ("UsageReport", "reporting_enabled"),
    ("Kv", "store"),
    ("Azure", "use_managed_identity"),
    ("Azure", "use_federated_token"),
    ("Block", "version"),
];

struct Field {
    is_used: bool,
    name: String,
    of: String,
}

/// The blocks that `section!` declares, from their text.
fn sections() -> BTreeMap<String, Vec<Field>> {
    let mut sections: BTreeMap<String, Vec<Field>> = BTreeMap::new();
    let mut current = String::new();
    for file in rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        for line in fs::read_to_string(file).expect("a source can be read").lines() {
            let line = line.trim();
            if let Some(name) = line.strip_prefix("pub struct ") {
                current = name.trim_end_matches(" {").to_owned();
            }
            let Some((mark, rest)) = line.split_once(' ').filter(|(mark, _)| ["used", "idle", "always", "refused"].contains(mark)) else {
                continue;
            };
            let Some((name, of)) = rest.split_once(": ") else { continue };
            let name = name.split(' ').next().unwrap_or_default().to_owned();
            let of = of.split(" = ").next().unwrap_or_default().to_owned();
            sections.entry(current.clone()).or_default().push(Field { is_used: mark == "used", name, of });
        }
    }
    // These two are read by hand, and say themselves what is used in them.
    let blocks = ["OtlpProtocols", "JaegerProtocols", "ZipkinHttp", "KafkaConsumer"];
    for (name, blocks) in [("Receivers", &blocks[..]), ("OverridesConfig", &["Limits"])] {
        let field = |of: &&str| Field { is_used: true, name: "defaults".to_owned(), of: (*of).to_owned() };
        sections.insert(name.to_owned(), blocks.iter().map(field).collect());
    }
    sections
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = vec![];
    for entry in fs::read_dir(folder).expect("a folder of sources").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            files.extend(rust_files(&entry));
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            files.push(entry);
        }
    }
    files
}

/// The words of all other crates' sources.
fn words_elsewhere() -> BTreeSet<String> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut words = BTreeSet::new();
    for entry in fs::read_dir(&crates).expect("the crates").map(|entry| entry.expect("an entry").path()) {
        if entry.ends_with("vivace-config") || !entry.join("src").is_dir() {
            continue;
        }
        for file in rust_files(&entry.join("src")) {
            let text = fs::read_to_string(file).expect("a source can be read");
            let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
            words.extend(code.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_')).map(str::to_owned));
        }
    }
    words
}

#[test]
fn what_is_marked_as_used_is_read_by_someone() {
    let (sections, words) = (sections(), words_elsewhere());
    let mut missing = vec![];
    let (mut seen, mut waiting) = (BTreeSet::new(), vec!["Config".to_owned()]);
    while let Some(section) = waiting.pop() {
        let Some(fields) = sections.get(&section).filter(|_| seen.insert(section.clone())) else { continue };
        for field in fields.iter().filter(|field| field.is_used) {
            let of = field.of.trim_start_matches("Option<").trim_start_matches("Vec<").trim_end_matches('>');
            if sections.contains_key(of) {
                waiting.push(of.to_owned());
            } else if !words.contains(&field.name) && !WITHIN.contains(&(section.as_str(), field.name.as_str())) {
                missing.push(format!("{section}.{}", field.name));
            }
        }
    }
    assert!(seen.len() > 40, "the blocks are found: {seen:?}");
    assert!(missing.is_empty(), "marked as used, and read by no other crate: {missing:#?}");
}
