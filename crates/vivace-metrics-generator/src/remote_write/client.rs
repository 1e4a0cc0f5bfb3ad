//! The HTTP client of one receiver: TLS, proxies, redirects. Certificates are read again when their files change.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use parking_lot::Mutex;
use rand::seq::SliceRandom as _;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::tls::Version;
use reqwest::{Certificate, Identity, NoProxy, Proxy, RequestBuilder, Response, Url};
use vivace_config::{OAuth2, RemoteWrite, RemoteWriteTls, Secret, SecretUrl};

/// How often the files of `tls_config` are read again.
const RELOAD: Duration = Duration::from_secs(60);

/// Posts to one URL.
#[derive(Debug)]
pub(crate) struct Client {
    options: ClientOptions,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    client: reqwest::Client,
    files: Files,
    looked_at: Instant,
}

/// What was read of the files of `tls_config`: authorities, certificate, key.
#[derive(PartialEq, Eq)]
struct Files([Vec<u8>; 3]);

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Files")
    }
}

/// What the configuration says of the way to a URL.
#[derive(Debug, Clone)]
pub(crate) struct ClientOptions {
    url: Url,
    tls: RemoteWriteTls,
    proxy_url: SecretUrl,
    no_proxy: String,
    proxy_from_environment: bool,
    proxy_headers: BTreeMap<String, Vec<Secret>>,
    follows_redirects: bool,
    speaks_http2: bool,
    /// Each connection goes to another address.
    spreads: bool,
}

impl ClientOptions {
    /// # Errors
    /// What is wrong with the URL.
    pub(crate) fn of_receiver(entry: &RemoteWrite) -> anyhow::Result<Self> {
        Ok(Self {
            url: url(&entry.url).context("url")?,
            tls: entry.tls_config.clone(),
            proxy_url: entry.proxy_url.clone(),
            no_proxy: entry.no_proxy.clone(),
            proxy_from_environment: entry.proxy_from_environment,
            proxy_headers: entry.proxy_connect_header.clone(),
            follows_redirects: entry.follow_redirects,
            speaks_http2: entry.enable_http2,
            spreads: entry.round_robin_dns,
        })
    }

    /// # Errors
    /// What is wrong with the URL.
    pub(crate) fn of_tokens(oauth2: &OAuth2) -> anyhow::Result<Self> {
        Ok(Self {
            url: url(&oauth2.token_url).context("oauth2.token_url")?,
            tls: oauth2.tls_config.clone(),
            proxy_url: oauth2.proxy_url.clone(),
            no_proxy: oauth2.no_proxy.clone(),
            proxy_from_environment: oauth2.proxy_from_environment,
            proxy_headers: oauth2.proxy_connect_header.clone(),
            follows_redirects: true,
            speaks_http2: true,
            spreads: false,
        })
    }
}

impl Client {
    /// # Errors
    /// A file that cannot be read, or whose content is not what it should be, by key.
    pub(crate) fn new(options: ClientOptions) -> anyhow::Result<Self> {
        // Clients are built without a provider of their own. A second installation in one process is refused, which is fine.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let files = Files::read(&options.tls)?;
        let client = options.build(&files)?;
        Ok(Self { options, current: Mutex::new(Current { client, files, looked_at: Instant::now() }) })
    }

    /// The URL with which requests are signed.
    pub(crate) fn url(&self) -> &Url {
        &self.options.url
    }

    /// Begins a request.
    pub(crate) fn post(&self) -> RequestBuilder {
        let client = self.now();
        let Some(name) = self.options.other_name() else { return client.post(self.options.url.clone()) };
        // The server is called by the name that its certificate has, and found by that of the URL: see `Resolver`.
        let mut url = self.options.url.clone();
        let host = authority(&url);
        // A name that was looked at at the start can be set.
        let _ = url.set_host(Some(name));
        client.post(url).header("host", host)
    }

    /// The client, of files that have changed since. Where the new ones are not usable the old ones stay.
    fn now(&self) -> reqwest::Client {
        let mut current = self.current.lock();
        if has_files(&self.options.tls) && current.looked_at.elapsed() >= RELOAD {
            current.looked_at = Instant::now();
            self.reload(&mut current);
        }
        current.client.clone()
    }

    fn reload(&self, current: &mut Current) {
        let reloaded = Files::read(&self.options.tls).and_then(|files| match files == current.files {
            true => Ok(None),
            false => Ok(Some((self.options.build(&files)?, files))),
        });
        match reloaded {
            Ok(None) => {}
            Ok(Some((client, files))) => {
                tracing::info!(host = self.options.url.host_str(), "certificates of remote_write have changed and were read again");
                (current.client, current.files) = (client, files);
            }
            Err(error) => tracing::warn!(error = format!("{error:#}"), "changed certificates are not usable; those of before stay"),
        }
    }
}

impl ClientOptions {
    fn build(&self, Files([ca, cert, key]): &Files) -> anyhow::Result<reqwest::Client> {
        let tls = &self.tls;
        let mut builder = reqwest::Client::builder()
            .redirect(if self.follows_redirects { Policy::default() } else { Policy::none() })
            .danger_accept_invalid_certs(tls.insecure_skip_verify);
        if !self.speaks_http2 || self.other_name().is_some() {
            builder = builder.http1_only();
        }
        if !ca.is_empty() {
            let authorities = Certificate::from_pem_bundle(ca).context("tls_config.ca_file: expected certificates in PEM")?;
            ensure!(!authorities.is_empty(), "tls_config.ca_file: expected certificates in PEM; there is none");
            builder = authorities.into_iter().fold(builder.tls_built_in_root_certs(false), reqwest::ClientBuilder::add_root_certificate);
        }
        if !cert.is_empty() || !key.is_empty() {
            let both = [cert.as_slice(), b"\n", key].concat();
            let expected = "tls_config.cert_file, key_file: expected a certificate and its private key in PEM";
            builder = builder.identity(Identity::from_pem(&both).context(expected)?);
        }
        // Older ones than TLS 1.2 do not exist here.
        if tls.min_version == "TLS13" {
            builder = builder.min_tls_version(Version::TLS_1_3);
        }
        if tls.max_version == "TLS12" {
            builder = builder.max_tls_version(Version::TLS_1_2);
        }
        if self.other_name().is_some() || self.spreads {
            let host = self.url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            builder = builder.dns_resolver(Arc::new(Resolver { alias: self.other_name().map(str::to_owned), host, spreads: self.spreads }));
        }
        self.proxied(builder)?.build().context("cannot make a client")
    }

    fn proxied(&self, builder: reqwest::ClientBuilder) -> anyhow::Result<reqwest::ClientBuilder> {
        if self.proxy_from_environment {
            return Ok(builder);
        }
        if self.proxy_url.is_empty() {
            // The environment of a process that has other clients is not asked unless the configuration says so.
            return Ok(builder.no_proxy());
        }
        ensure!(self.other_name().is_none(), "tls_config.server_name with proxy_url is not built; expected one of them");
        let mut headers = HeaderMap::new();
        for (name, values) in &self.proxy_headers {
            for value in values {
                let name = HeaderName::try_from(name).context("proxy_connect_header: cannot be the name of a header")?;
                let value = HeaderValue::try_from(value.expose()).context("proxy_connect_header: a value cannot be sent")?;
                headers.append(name, value);
            }
        }
        let proxy = Proxy::all(self.proxy_url.expose()).map_err(|_| anyhow::anyhow!("proxy_url: expected a URL of a proxy"))?;
        Ok(builder.proxy(proxy.headers(headers).no_proxy(NoProxy::from_string(&self.no_proxy))))
    }

    /// The name that the server's certificate has, where it is not the URL's.
    fn other_name(&self) -> Option<&str> {
        let name = self.tls.server_name.as_str();
        (!name.is_empty() && self.url.scheme() == "https" && self.url.host_str() != Some(name)).then_some(name)
    }
}

impl Files {
    fn read(tls: &RemoteWriteTls) -> anyhow::Result<Self> {
        let read = |text: &str, file: &str, key: &str| match file {
            "" => Ok(text.as_bytes().to_vec()),
            file => std::fs::read(file).with_context(|| format!("tls_config.{key}: cannot read {file:?}")),
        };
        Ok(Self([
            read(&tls.ca, &tls.ca_file, "ca_file")?,
            read(&tls.cert, &tls.cert_file, "cert_file")?,
            read(tls.key.expose(), &tls.key_file, "key_file")?,
        ]))
    }
}

/// Finds the addresses of a server that is called by another name, and mixes them.
struct Resolver {
    alias: Option<String>,
    host: String,
    spreads: bool,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let is_alias = self.alias.as_deref().is_some_and(|alias| alias.eq_ignore_ascii_case(name.as_str()));
        let host = if is_alias { self.host.clone() } else { name.as_str().to_owned() };
        let spreads = self.spreads;
        Box::pin(async move {
            let mut found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            if spreads {
                found.shuffle(&mut rand::rng());
            }
            let found: Addrs = Box::new(found.into_iter());
            Ok(found)
        })
    }
}

fn has_files(tls: &RemoteWriteTls) -> bool {
    [&tls.ca_file, &tls.cert_file, &tls.key_file].iter().any(|file| !file.is_empty())
}

/// The beginning of an answer's body, so many bytes at most.
pub(crate) async fn beginning(mut answer: Response, bytes_max: usize) -> reqwest::Result<Vec<u8>> {
    let mut body = Vec::new();
    while body.len() < bytes_max
        && let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)?
    {
        body.extend_from_slice(&chunk[..chunk.len().min(bytes_max - body.len())]);
    }
    Ok(body)
}

/// Host and port as a request names them.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The error does not tell the URL, which may have a password.
fn url(url: &SecretUrl) -> anyhow::Result<Url> {
    let url = Url::parse(url.expose()).map_err(|error| anyhow::anyhow!("expected a URL; got {:?}: {error}", url.masked()))?;
    ensure!(matches!(url.scheme(), "http" | "https") && url.has_host(), "expected a URL with http:// or https:// and a host");
    Ok(url)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use vivace_config::Config;

    use super::*;

    #[test]
    fn changed_certificates_are_taken_unless_they_are_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let (cert, key) = (folder.path().join("cert"), folder.path().join("key"));
        let write = || {
            let pair = KeyPair::generate().expect("a key");
            let signed = CertificateParams::new(vec!["me".to_owned()]).expect("a name").self_signed(&pair).expect("signed");
            std::fs::write(&cert, signed.pem()).and_then(|()| std::fs::write(&key, pair.serialize_pem())).expect("written");
        };
        write();
        let tls = format!("tls_config: {{cert_file: {}, key_file: {}}}", cert.display(), key.display());
        let text = format!("metrics_generator: {{storage: {{remote_write: [{{url: 'https://a', {tls}}}]}}}}");
        let (config, _) = Config::parse(&text, "t").expect("it is right");
        let client = ClientOptions::of_receiver(&config.metrics_generator.storage.remote_write[0]).and_then(Client::new).expect("usable");
        let certificate = || client.current.lock().files.0[1].clone();
        let look = || client.reload(&mut client.current.lock());
        let first = certificate();
        std::fs::write(&cert, "half a cert").expect("written");
        look();
        assert_eq!(certificate(), first, "that of before stays");
        std::fs::remove_file(&cert).expect("it was there");
        look();
        assert_eq!(certificate(), first);
        write();
        look();
        assert_ne!(certificate(), first);
        assert_eq!(certificate(), std::fs::read(&cert).expect("there"));
    }
}
