//! Tells the programs which commit they are built from, and of which branch and date: what the environment says, else what git says.
//!
//! Git is asked in release builds alone: in others each commit would build all services anew.

#![expect(clippy::disallowed_methods, reason = "how a build script and cargo speak to each other")]

use std::process::Command;

const FACTS: [(&str, &[&str]); 3] = [
    ("VIVACE_REVISION", &["rev-parse", "HEAD"]),
    ("VIVACE_BRANCH", &["rev-parse", "--abbrev-ref", "HEAD"]),
    // The commit's date, not today's: the same commit makes the same program.
    ("VIVACE_BUILD_DATE", &["log", "-1", "--format=%cI"]),
];

fn main() {
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    println!("cargo::rerun-if-changed=build.rs");
    // It grows with every commit and every change of branch.
    if let Some(log) = is_release.then(|| git(&["rev-parse", "--git-path", "logs/HEAD"])).flatten() {
        println!("cargo::rerun-if-changed={log}");
    }
    for (name, question) in FACTS {
        println!("cargo::rerun-if-env-changed={name}");
        let told = std::env::var(name).ok().filter(|told| !told.is_empty());
        let known = told.or_else(|| is_release.then(|| git(question)).flatten());
        println!("cargo::rustc-env={name}={}", known.unwrap_or_default());
    }
}

/// What git answers, if there is git, and this is a clone.
fn git(question: &[&str]) -> Option<String> {
    let answer = Command::new("git").args(question).output().ok().filter(|answer| answer.status.success())?;
    let text = String::from_utf8(answer.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
