//! What this build is.

use serde::Serialize;

use crate::metrics::{BUILD_INFO, TEMPO_BUILD_INFO};

/// The version of Vivace.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The release of Tempo whose interfaces this build has. Grafana compares `/api/status/buildinfo` with it.
pub(crate) const TEMPO_VERSION: &str = "2.10.0";

/// Commit, branch, and date of the commit; empty where the build did not know them. `build.rs` of this crate finds them out.
const REVISION: &str = env!("VIVACE_REVISION");
const BRANCH: &str = env!("VIVACE_BRANCH");
const BUILD_DATE: &str = env!("VIVACE_BUILD_DATE");

/// The body of `/api/status/buildinfo`. Exactly Tempo's members: clients parse it strictly.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BuildInfo {
    version: &'static str,
    revision: &'static str,
    branch: &'static str,
    build_user: String,
    build_date: &'static str,
    go_version: &'static str,
}

impl BuildInfo {
    pub(crate) fn of_this_build() -> Self {
        Self {
            version: TEMPO_VERSION,
            revision: REVISION,
            branch: BRANCH,
            build_user: format!("vivace {VERSION}"),
            build_date: BUILD_DATE,
            go_version: "",
        }
    }
}

/// The text of `/status/version` and `-version`.
pub(crate) fn text(name: &str) -> String {
    let known = |fact: &'static str| if fact.is_empty() { "unknown" } else { fact };
    format!(
        "{name}, version {VERSION} (branch: {}, revision: {})\n  compatible with: Tempo {TEMPO_VERSION}\n  platform: {}/{}\n",
        known(BRANCH),
        known(REVISION),
        std::env::consts::OS,
        std::env::consts::ARCH,
    )
}

/// `tempo_build_info`.
pub(crate) fn publish() {
    let goarch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    metrics::gauge!(
        TEMPO_BUILD_INFO.name,
        "version" => TEMPO_VERSION,
        "revision" => REVISION,
        "branch" => BRANCH,
        "goversion" => "",
        "goos" => std::env::consts::OS,
        "goarch" => goarch,
        "tags" => "vivace",
    )
    .set(1.0);
    metrics::gauge!(BUILD_INFO.name, "version" => VERSION).set(1.0);
}
