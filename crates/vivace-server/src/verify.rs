//! What a start would find out beyond the text of the configuration: the files that it names.

use std::path::Path;

use vivace_config::{Config, Overrides, Target, Warning, WarningKind};
use vivace_core::TenantId;

use crate::load::read_overrides;
use crate::tls::{self, Tls};

/// Reads the files that the configuration names: limits of tenants, and certificates. Nothing is started.
///
/// # Errors
/// What a start would end with, for people.
pub fn verify(config: &Config) -> Result<Vec<Warning>, String> {
    let warnings = overrides(config)?;
    Tls::verify(config).map_err(|error| format!("failed setting up TLS: {error:#}"))?;
    if config.target.includes(Target::Distributor) {
        for (index, forwarder) in config.distributor.forwarders.iter().enumerate() {
            let tls = &forwarder.otlpgrpc.tls;
            if !tls.insecure {
                let key = format!("distributor.forwarders[{index}].otlpgrpc.tls.cert_file");
                tls::certificates_of(&tls.cert_file, &key).map_err(|error| format!("failed setting up TLS: {error:#}"))?;
            }
        }
    }
    Ok(warnings)
}

/// What there is to say of the file of limits per tenant. It may well be on another machine than where the configuration is checked.
fn overrides(config: &Config) -> Result<Vec<Warning>, String> {
    let defaults = &config.overrides.defaults;
    let file = config.overrides.per_tenant_override_config.as_str();
    if file.is_empty() {
        return Ok(unknown_forwarders(config, &Overrides::new(defaults.clone())));
    }
    if !Path::new(file).exists() {
        let path = "overrides.per_tenant_override_config".to_owned();
        let message = format!("{file} is not there: a start would fail on this machine");
        return Ok(vec![Warning { kind: WarningKind::NoEffect, path, line: 0, message }]);
    }
    let text = read_overrides(file)?;
    let (overrides, mut warnings) = Overrides::parse(defaults, &text, file).map_err(|errors| format!("failed parsing config: {errors}"))?;
    warnings.extend(unknown_forwarders(config, &overrides));
    Ok(warnings)
}

/// Names of forwarders that there are none of: nothing of such a tenant would be forwarded.
fn unknown_forwarders(config: &Config, overrides: &Overrides) -> Vec<Warning> {
    let known = |name: &String| config.distributor.forwarders.iter().any(|forwarder| forwarder.name == *name);
    let named =
        |tenant: Option<&TenantId>| tenant.map_or_else(|| overrides.defaults(), |tenant| overrides.limits(tenant)).forwarders.clone();
    let tenants = overrides.tenants();
    let all = std::iter::once(None).chain(tenants.iter().map(Some));
    let unknown = all.filter_map(|tenant| named(tenant).into_iter().find(|name| !known(name)).map(|name| (tenant, name)));
    unknown
        .map(|(tenant, name)| Warning {
            kind: WarningKind::Advice,
            path: tenant.map_or_else(|| "overrides.defaults.forwarders".to_owned(), |tenant| format!("overrides.{tenant}.forwarders")),
            line: 0,
            message: format!("{name:?} is none of distributor.forwarders, so nothing is forwarded"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use vivace_config::{Forwarder, flags::Flags};

    use super::*;

    fn config(yaml: &str) -> Config {
        let (config, _) = Config::load(
            Some((&format!("storage: {{trace: {{backend: local, local: {{path: b}}, wal: {{path: w}}}}}}\n{yaml}"), "t")),
            &Flags::default(),
        )
        .expect("read");
        config
    }

    fn forwarder(tls: &str) -> String {
        format!("distributor: {{forwarders: [{{name: a, backend: otlpgrpc, otlpgrpc: {{endpoints: ['b:4317'], tls: {{{tls}}}}}}}]}}")
    }

    #[test]
    fn certificates_of_forwarders_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("c.pem");
        let of_file = config(&forwarder(&format!("cert_file: {}", file.display())));
        assert!(verify(&of_file).expect_err("is not there").contains("distributor.forwarders[0].otlpgrpc.tls.cert_file: cannot read"));
        std::fs::write(&file, "none").expect("written");
        assert!(verify(&of_file).expect_err("is none").contains("cert_file: expected certificates in PEM"));
        verify(&config(&forwarder("insecure: true"))).expect("no file is named");
    }

    #[test]
    fn forwarders_that_tenants_name_are_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("limits.yaml");
        std::fs::write(&file, "overrides: {one: {forwarders: [a]}, two: {forwarders: [a, b]}}").expect("written");
        let mut config = config(&forwarder("insecure: true"));
        config.overrides.per_tenant_override_config = file.display().to_string();
        let said: Vec<_> = verify(&config).expect("starts").iter().map(ToString::to_string).collect();
        assert_eq!(said, ["overrides.two.forwarders: \"b\" is none of distributor.forwarders, so nothing is forwarded"]);
        config.distributor.forwarders = vec![Forwarder { name: "b".to_owned(), ..config.distributor.forwarders[0].clone() }];
        config.overrides.defaults.forwarders = vec!["c".to_owned()];
        assert_eq!(verify(&config).expect("starts").len(), 3);
    }
}
