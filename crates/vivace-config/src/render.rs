use serde_yaml::Value as Yaml;

use crate::Config;
use crate::value::Value;

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
