//! What a start would find out beyond the text of the configuration: the files that it names.

use std::path::Path;

use anyhow::{Context as _, ensure};
use http::{HeaderName, Uri};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use vivace_config::{Config, Overrides, RemoteWrite, RemoteWriteTls, Target, Warning, WarningKind};
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
        for receiver in &config.distributor.receivers.kafka {
            let Some((key, tls)) = receiver.consumer.tls() else { continue };
            let key = format!("distributor.receivers.{}.{key}", receiver.id);
            files_of_tls(&key, &tls.ca_file, &tls.cert_file, &tls.key_file).map_err(|error| format!("failed setting up TLS: {error:#}"))?;
        }
    }
    if config.target.includes(Target::MetricsGenerator) && !config.metrics_generator.storage.path.is_empty() {
        for (index, entry) in config.metrics_generator.storage.remote_write.iter().enumerate() {
            let key = format!("metrics_generator.storage.remote_write[{index}]");
            remote_write(entry).with_context(|| key).map_err(|error| format!("failed setting up remote write: {error:#}"))?;
        }
    }
    Ok(warnings)
}

/// The files of a receiver of metrics, which a metrics-generator reads at its start.
fn remote_write(entry: &RemoteWrite) -> anyhow::Result<()> {
    is_uri(entry.url.expose(), "url")?;
    is_uri(entry.proxy_url.expose(), "proxy_url")?;
    for name in entry.headers.keys() {
        HeaderName::try_from(name.as_str()).with_context(|| format!("headers: {name:?} is no name of a header"))?;
    }
    remote_write_tls(&entry.tls_config, "tls_config")?;
    if let Some(oauth2) = &entry.oauth2 {
        remote_write_tls(&oauth2.tls_config, "oauth2.tls_config")?;
        is_uri(oauth2.token_url.expose(), "oauth2.token_url")?;
        is_uri(oauth2.proxy_url.expose(), "oauth2.proxy_url")?;
    }
    let mut secrets = vec![("bearer_token_file".to_owned(), &entry.bearer_token_file, entry.bearer_token.is_empty())];
    if let Some(auth) = &entry.basic_auth {
        secrets.push(("basic_auth.username_file".to_owned(), &auth.username_file, auth.username.is_empty()));
        secrets.push(("basic_auth.password_file".to_owned(), &auth.password_file, auth.password.is_empty()));
    }
    if let Some(auth) = &entry.authorization {
        secrets.push(("authorization.credentials_file".to_owned(), &auth.credentials_file, auth.credentials.is_empty()));
    }
    if let Some(oauth2) = &entry.oauth2 {
        secrets.push(("oauth2.client_secret_file".to_owned(), &oauth2.client_secret_file, oauth2.client_secret.is_empty()));
    }
    for (name, header) in &entry.http_headers {
        secrets.extend(header.files.iter().map(|file| (format!("http_headers.{name}.files"), file, true)));
    }
    // What the configuration says itself goes before a file.
    for (key, file, _) in secrets.into_iter().filter(|(_, file, is_read)| *is_read && !file.is_empty()) {
        std::fs::read_to_string(file).with_context(|| format!("{key}: cannot read {file:?}"))?;
    }
    Ok(())
}

/// With a scheme and a host, or nothing. What it is may be a secret.
fn is_uri(text: &str, key: &str) -> anyhow::Result<()> {
    let is_one = text.parse::<Uri>().is_ok_and(|uri| uri.scheme().is_some() && uri.host().is_some_and(|host| !host.is_empty()));
    ensure!(text.is_empty() || is_one, "{key}: expected a URL such as https://host:port/path");
    Ok(())
}

fn remote_write_tls(tls: &RemoteWriteTls, key: &str) -> anyhow::Result<()> {
    files_of_tls(key, &tls.ca_file, &tls.cert_file, &tls.key_file)
}

/// The files that are named.
fn files_of_tls(key: &str, ca_file: &str, cert_file: &str, key_file: &str) -> anyhow::Result<()> {
    for (name, file) in [("ca_file", ca_file), ("cert_file", cert_file)] {
        if !file.is_empty() {
            tls::certificates_of(file, &format!("{key}.{name}"))?;
        }
    }
    if !key_file.is_empty() {
        let pem = std::fs::read(key_file).with_context(|| format!("{key}.key_file: cannot read {key_file:?}"))?;
        PrivateKeyDer::from_pem_slice(&pem).map_err(|_| anyhow::anyhow!("{key}.key_file: expected a private key in PEM"))?;
    }
    Ok(())
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
    fn files_of_remote_write_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        let name = file.display();
        let of = |keys: &str| {
            config(&format!(
                "metrics_generator: {{storage: {{path: {}, remote_write: [{{url: 'https://a', {keys}}}]}}}}",
                folder.path().display()
            ))
        };
        let certificate = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        let key = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
        let token_url = "oauth2: {client_id: a, token_url: 'https://b'";
        for (keys, at, good, bad) in [
            (format!("tls_config: {{ca_file: {name}}}"), "tls_config.ca_file", certificate, Some("certificates in PEM")),
            (format!("tls_config: {{cert_file: {name}, key: x}}"), "tls_config.cert_file", certificate, Some("certificates in PEM")),
            (format!("tls_config: {{cert: x, key_file: {name}}}"), "tls_config.key_file", key, Some("private key in PEM")),
            (format!("{token_url}, tls_config: {{ca_file: {name}}}}}"), "oauth2.tls_config.ca_file", certificate, Some("in PEM")),
            (format!("{token_url}, client_secret_file: {name}}}"), "oauth2.client_secret_file", "a", None),
            (format!("basic_auth: {{username_file: {name}}}"), "basic_auth.username_file", "a", None),
            (format!("basic_auth: {{username: a, password_file: {name}}}"), "basic_auth.password_file", "a", None),
            (format!("authorization: {{credentials_file: {name}}}"), "authorization.credentials_file", "a", None),
            (format!("bearer_token_file: {name}"), "bearer_token_file", "a", None),
            (format!("http_headers: {{X-Key: {{files: [{name}]}}}}"), "http_headers.X-Key.files", "a", None),
        ] {
            let said = verify(&of(&keys)).expect_err("is not there");
            assert!(said.contains(&format!("metrics_generator.storage.remote_write[0]: {at}: cannot read")), "{said}");
            std::fs::write(&file, "none").expect("written");
            if let Some(bad) = bad {
                let said = verify(&of(&keys)).expect_err("is none");
                assert!(said.contains(at) && said.contains(bad), "{said}");
            }
            std::fs::write(&file, good).expect("written");
            verify(&of(&keys)).expect("is right");
            std::fs::remove_file(&file).expect("it was there");
        }
        let mut distributor = of(&format!("bearer_token_file: {name}"));
        distributor.target = Target::Distributor;
        verify(&distributor).expect("does not read it");
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
