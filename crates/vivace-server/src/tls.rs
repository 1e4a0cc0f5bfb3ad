//! TLS of listeners: who they are, which clients they take, and reading both again when the files change.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use parking_lot::Mutex;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use vivace_config::{CollectorTls, Config, Server, ServerTls, Target};

/// The keys of the HTTP listener.
const HTTP_SECTION: &str = "server.http_tls_config";
/// How often the files of `server.*_tls_config` are read again.
const SERVER_RELOAD: Duration = Duration::from_secs(60);
/// Longest time until a client has shown who it is and agreed on keys.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Both, since HTTP and gRPC are told apart by what is sent.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The TLS of one listener.
#[derive(Debug)]
pub struct Tls {
    options: Options,
    current: Mutex<Current>,
}

/// What connections are accepted with now.
#[derive(Debug)]
struct Current {
    files: Files,
    config: Arc<ServerConfig>,
    looked_at: Instant,
}

/// Where TLS is configured, in one form for all listeners.
#[derive(Debug)]
struct Options {
    /// Of the configuration; names the keys in errors.
    section: String,
    cert: Pem,
    key: Pem,
    client_ca: Pem,
    clients: Clients,
    versions: Vec<&'static SupportedProtocolVersion>,
    /// Names of cipher suites of TLS 1.2, those of Go; none is all.
    cipher_suites: Vec<String>,
    /// Names of groups for the exchange of keys, those of Go; none is all.
    curves: Vec<String>,
    /// Pause between two looks at the files; zero is never.
    reload: Duration,
}

/// Text in the configuration, or the file that it is in.
struct Pem {
    text: String,
    file: String,
}

impl Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pem").field("file", &self.file).finish_non_exhaustive()
    }
}

/// What was read.
#[derive(PartialEq, Eq)]
struct Files {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Vec<u8>,
}

impl Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files").finish_non_exhaustive()
    }
}

/// Whether clients show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clients {
    NeedNone,
    MayShow,
    MustShow,
}

impl Tls {
    /// Of a receiver, in the collector's form; `section` are its keys in the configuration.
    ///
    /// # Errors
    /// A file that cannot be read, or whose content is none of what it should be, by key.
    pub fn of_receiver(tls: &CollectorTls, section: &str) -> anyhow::Result<Self> {
        let client_ca = Pem { text: String::new(), file: tls.client_ca_file.clone() };
        Self::load(Options {
            section: section.to_owned(),
            cert: Pem { text: tls.cert_pem.clone(), file: tls.cert_file.clone() },
            key: Pem { text: tls.key_pem.expose().to_owned(), file: tls.key_file.clone() },
            clients: if client_ca.is_empty() { Clients::NeedNone } else { Clients::MustShow },
            client_ca,
            versions: versions(&tls.min_version, &tls.max_version).with_context(|| section.to_owned())?,
            cipher_suites: tls.cipher_suites.clone(),
            curves: tls.curve_preferences.clone(),
            reload: match (tls.reload_interval, tls.client_ca_file_reload) {
                (Duration::ZERO, true) => SERVER_RELOAD,
                (interval, _) => interval,
            },
        })
    }

    /// What a start would find out about the TLS of all listeners.
    ///
    /// # Errors
    /// As [`Tls::of_receiver`].
    pub(crate) fn verify(config: &Config) -> anyhow::Result<()> {
        Self::of_http(&config.server)?;
        if config.target.includes(Target::Distributor) {
            for endpoint in config.distributor.receivers.endpoints() {
                endpoint.tls.map(|tls| Self::of_receiver(tls, &format!("{}.tls", endpoint.path()))).transpose()?;
            }
        }
        Ok(())
    }

    /// Of the process' HTTP listener; none where none is configured.
    ///
    /// # Errors
    /// As [`Tls::of_receiver`].
    pub(crate) fn of_http(server: &Server) -> anyhow::Result<Option<Self>> {
        Self::of_server(&server.http_tls_config, server, HTTP_SECTION)
    }

    /// Of `server.http_tls_config` and its like; none where no certificate is named.
    ///
    /// # Errors
    /// As [`Tls::of_receiver`].
    fn of_server(tls: &ServerTls, server: &Server, section: &str) -> anyhow::Result<Option<Self>> {
        if *tls == ServerTls::default() {
            return Ok(None);
        }
        let client_ca = Pem { text: tls.client_ca.clone(), file: tls.client_ca_file.clone() };
        let clients = match tls.client_auth_type.as_str() {
            "" | "NoClientCert" => Clients::NeedNone,
            "VerifyClientCertIfGiven" => Clients::MayShow,
            "RequireAndVerifyClientCert" => Clients::MustShow,
            other => bail!(
                "{section}.client_auth_type: expected NoClientCert, VerifyClientCertIfGiven or RequireAndVerifyClientCert; got {other:?}. A \
                 certificate that nobody checks says nothing about a client"
            ),
        };
        ensure!(
            clients != Clients::NeedNone || client_ca.is_empty(),
            "{section}: client_ca_file names whose certificates clients may show, and client_auth_type asks none of them for one; expected \
             RequireAndVerifyClientCert or VerifyClientCertIfGiven, or no client_ca_file"
        );
        Self::load(Options {
            section: section.to_owned(),
            cert: Pem { text: tls.cert.clone(), file: tls.cert_file.clone() },
            key: Pem { text: tls.key.expose().to_owned(), file: tls.key_file.clone() },
            client_ca,
            clients,
            versions: versions(&server.tls_min_version, "").context("server.tls_min_version")?,
            cipher_suites: server.tls_cipher_suites.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect(),
            curves: Vec::new(),
            reload: SERVER_RELOAD,
        })
        .map(Some)
    }

    fn load(options: Options) -> anyhow::Result<Self> {
        let files = options.read()?;
        let config = Arc::new(options.config(&files)?);
        let current = Mutex::new(Current { files, config, looked_at: Instant::now() });
        Ok(Self { options, current })
    }

    /// Agrees with a client on keys.
    ///
    /// # Errors
    /// The client speaks something else, shows no certificate that is good enough, or takes too long.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(self.now(Instant::now()));
        tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await?
    }

    /// The configuration, of files that have changed since. Where the new ones are not usable the old ones stay.
    fn now(&self, now: Instant) -> Arc<ServerConfig> {
        let mut current = self.current.lock();
        if self.options.reload.is_zero() || now.duration_since(current.looked_at) < self.options.reload {
            return current.config.clone();
        }
        current.looked_at = now;
        let reloaded = self.options.read().and_then(|files| match files == current.files {
            true => Ok(None),
            false => Ok(Some((Arc::new(self.options.config(&files)?), files))),
        });
        match reloaded {
            Ok(None) => {}
            Ok(Some((config, files))) => {
                tracing::info!(section = self.options.section, "certificates have changed and were read again");
                (current.config, current.files) = (config, files);
            }
            Err(error) => tracing::warn!(error = format!("{error:#}"), "changed certificates are not usable; those of before stay"),
        }
        current.config.clone()
    }
}

impl Options {
    fn read(&self) -> anyhow::Result<Files> {
        let read = |pem: &Pem, key: &str| pem.read(&format!("{}.{key}", self.section));
        let (cert, key) = (read(&self.cert, "cert_file")?, read(&self.key, "key_file")?);
        ensure!(!cert.is_empty() && !key.is_empty(), "{}: expected both cert_file and key_file", self.section);
        Ok(Files { cert, key, client_ca: read(&self.client_ca, "client_ca_file")? })
    }

    fn config(&self, files: &Files) -> anyhow::Result<ServerConfig> {
        let at = |key: &str| format!("{}.{key}", self.section);
        let certs = certificates(&files.cert).with_context(|| at("cert_file"))?;
        let key =
            PrivateKeyDer::from_pem_slice(&files.key).with_context(|| format!("{}: expected a private key in PEM", at("key_file")))?;
        let builder = ServerConfig::builder_with_provider(Arc::new(self.provider()?)).with_protocol_versions(&self.versions)?;
        let builder = match self.clients {
            Clients::NeedNone => builder.with_no_client_auth(),
            clients => builder.with_client_cert_verifier(self.verifier(&files.client_ca, clients).with_context(|| at("client_ca_file"))?),
        };
        let mut config = builder.with_single_cert(certs, key).with_context(|| format!("{}: the certificate and its key", self.section))?;
        config.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
        Ok(config)
    }

    fn verifier(&self, client_ca: &[u8], clients: Clients) -> anyhow::Result<Arc<dyn ClientCertVerifier>> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(client_ca)? {
            roots.add(certificate)?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(self.provider()?));
        Ok(if clients == Clients::MayShow { builder.allow_unauthenticated() } else { builder }.build()?)
    }

    /// What is offered. Suites of TLS 1.3 are always, named or not, as in Go.
    fn provider(&self) -> anyhow::Result<CryptoProvider> {
        let mut provider = aws_lc_rs::default_provider();
        if !self.cipher_suites.is_empty() {
            let name = |suite: &SupportedCipherSuite| format!("{:?}", suite.suite()).replace("TLS13_", "TLS_");
            known(&self.cipher_suites, provider.cipher_suites.iter().map(name), "a cipher suite")?;
            provider.cipher_suites.retain(|suite| suite.tls13().is_some() || self.cipher_suites.contains(&name(suite)));
        }
        if !self.curves.is_empty() {
            let name = |group: &&'static dyn SupportedKxGroup| curve(&format!("{:?}", group.name()));
            known(&self.curves, provider.kx_groups.iter().map(name), "a curve")?;
            provider.kx_groups.retain(|group| self.curves.contains(&name(group)));
        }
        Ok(provider)
    }
}

impl Pem {
    fn is_empty(&self) -> bool {
        self.text.is_empty() && self.file.is_empty()
    }

    /// `key` names it in the error.
    fn read(&self, key: &str) -> anyhow::Result<Vec<u8>> {
        if self.file.is_empty() {
            return Ok(self.text.clone().into_bytes());
        }
        std::fs::read(&self.file).with_context(|| format!("{key}: cannot read {:?}", self.file))
    }
}

/// The certificates in a file. `key` names it in errors.
///
/// # Errors
/// It cannot be read, or holds none.
pub(crate) fn certificates_of(file: &str, key: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let pem = std::fs::read(file).with_context(|| format!("{key}: cannot read {file:?}"))?;
    certificates(&pem).with_context(|| key.to_owned())
}

/// The certificates in a text.
///
/// # Errors
/// It holds none, or something else.
pub fn certificates(pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().context("expected certificates in PEM")?;
    ensure!(!certificates.is_empty(), "expected certificates in PEM; there is none");
    Ok(certificates)
}

/// The versions from one to the other, in the collector's spelling or Go's; what is older than TLS 1.2 does not exist here.
fn versions(min: &str, max: &str) -> anyhow::Result<Vec<&'static SupportedProtocolVersion>> {
    let number = |text: &str, default| match text {
        "" => Ok(default),
        "1.0" | "1.1" | "1.2" | "VersionTLS10" | "VersionTLS11" | "VersionTLS12" => Ok(2),
        "1.3" | "VersionTLS13" => Ok(3),
        other => bail!("expected a version of TLS, 1.2 or 1.3; got {other:?}"),
    };
    let (min, max) = (number(min, 2)?, number(max, 3)?);
    ensure!(min <= max, "min_version is above max_version");
    Ok([(2, &TLS12), (3, &TLS13)].into_iter().filter(|(number, _)| (min..=max).contains(number)).map(|(_, version)| version).collect())
}

/// As the collector calls a group.
fn curve(name: &str) -> String {
    match name {
        "secp256r1" => "P256".to_owned(),
        "secp384r1" => "P384".to_owned(),
        "secp521r1" => "P521".to_owned(),
        other => other.to_owned(),
    }
}

fn known(wanted: &[String], there: impl Iterator<Item = String>, what: &str) -> anyhow::Result<()> {
    let there: Vec<String> = there.collect();
    match wanted.iter().find(|name| !there.contains(name)) {
        Some(unknown) => bail!("{unknown:?} is not {what} that there is here: {}", there.join(", ")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ProtocolVersion};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream as ClientStream;

    use super::*;

    /// An authority and what it signs.
    struct Authority(CertifiedIssuer<'static, KeyPair>);

    impl Authority {
        fn new() -> Self {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
        }

        /// A certificate for `localhost` and its key, PEM.
        fn signs(&self) -> (String, String) {
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
            (certificate.pem(), key.serialize_pem())
        }

        fn pem(&self) -> String {
            self.0.pem()
        }

        /// A client that trusts this authority.
        fn client(&self, own: Option<(String, String)>, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
            let mut roots = RootCertStore::empty();
            roots.add(self.0.der().clone()).unwrap();
            let provider = Arc::new(aws_lc_rs::default_provider());
            let builder =
                ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap().with_root_certificates(roots);
            let mut config = match own {
                None => builder.with_no_client_auth(),
                Some((certificate, key)) => {
                    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                    builder.with_client_auth_cert(certificates(certificate.as_bytes()).unwrap(), key).unwrap()
                }
            };
            config.alpn_protocols = vec![b"h2".to_vec()];
            config
        }
    }

    fn receiver(certificate: &(String, String)) -> CollectorTls {
        CollectorTls { cert_pem: certificate.0.clone(), key_pem: certificate.1.clone().into(), ..CollectorTls::default() }
    }

    /// Both ends of a handshake; the server's only where it agreed.
    async fn meet(tls: &Tls, client: ClientConfig) -> (io::Result<()>, io::Result<ClientStream<TcpStream>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let connector = TlsConnector::from(Arc::new(client));
        let (server, client) = tokio::join!(tls.accept(stream), connector.connect(ServerName::try_from("localhost").expect("a name"), to));
        (server.map(drop), client)
    }

    const BOTH: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

    #[tokio::test]
    async fn clients_agree_on_tls_and_a_protocol() {
        let (authority, other) = (Authority::new(), Authority::new());
        let tls = Tls::of_receiver(&receiver(&authority.signs()), "r").unwrap();
        let (server, client) = meet(&tls, authority.client(None, &BOTH)).await;
        server.unwrap();
        let client = client.unwrap();
        assert_eq!(
            (client.get_ref().1.alpn_protocol(), client.get_ref().1.protocol_version()),
            (Some(&b"h2"[..]), Some(ProtocolVersion::TLSv1_3))
        );
        assert!(meet(&tls, other.client(None, &BOTH)).await.0.is_err(), "somebody else's certificate");
    }

    #[tokio::test]
    async fn versions_and_cipher_suites_are_bounded() {
        let authority = Authority::new();
        let (newest, older) = (authority.client(None, &[&TLS13]), authority.client(None, &[&TLS12]));
        let mut config = receiver(&authority.signs());
        config.min_version = "1.3".to_owned();
        let tls = Tls::of_receiver(&config, "r").unwrap();
        meet(&tls, newest.clone()).await.0.unwrap();
        assert!(meet(&tls, older.clone()).await.0.is_err());
        (config.min_version, config.max_version) = ("1.2".to_owned(), "1.2".to_owned());
        // Those of TLS 1.3 may be named, and are there either way.
        let named = ["TLS_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"];
        config.cipher_suites = named.map(str::to_owned).to_vec();
        config.curve_preferences = vec!["P384".to_owned()];
        let tls = Tls::of_receiver(&config, "r").unwrap();
        let client = meet(&tls, older).await.1.unwrap();
        let suite = client.get_ref().1.negotiated_cipher_suite().unwrap().suite();
        assert_eq!(format!("{suite:?}"), "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256");
        let group = client.get_ref().1.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(format!("{group:?}"), "secp384r1");
        assert!(meet(&tls, newest).await.0.is_err());
    }

    #[tokio::test]
    async fn clients_show_a_certificate_where_they_must() {
        let (authority, other) = (Authority::new(), Authority::new());
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, authority.pem()).unwrap();
        let config = CollectorTls { client_ca_file: ca.to_string_lossy().into_owned(), ..receiver(&authority.signs()) };
        let tls = Tls::of_receiver(&config, "r").unwrap();
        meet(&tls, authority.client(Some(authority.signs()), &BOTH)).await.0.unwrap();
        assert!(meet(&tls, authority.client(Some(other.signs()), &BOTH)).await.0.is_err());
        assert!(meet(&tls, authority.client(None, &BOTH)).await.0.is_err());

        let (cert, key) = authority.signs();
        let may = |auth: &str| ServerTls {
            cert: cert.clone(),
            key: key.clone().into(),
            client_ca: authority.pem(),
            client_auth_type: auth.to_owned(),
            ..ServerTls::default()
        };
        let load = |auth: &str| Tls::of_server(&may(auth), &Server::default(), "s");
        let tls = load("VerifyClientCertIfGiven").unwrap().unwrap();
        meet(&tls, authority.client(None, &BOTH)).await.0.unwrap();
        assert!(meet(&tls, authority.client(Some(other.signs()), &BOTH)).await.0.is_err());
        assert!(format!("{:#}", load("RequestClientCert").unwrap_err()).starts_with("s.client_auth_type: expected NoClientCert"));
        for open_to_all in ["", "NoClientCert"] {
            assert!(format!("{:#}", load(open_to_all).unwrap_err()).starts_with("s: client_ca_file names"), "{open_to_all}");
        }
        assert!(Tls::of_server(&ServerTls::default(), &Server::default(), "s").unwrap().is_none());
    }

    #[tokio::test]
    async fn changed_files_are_read_again_and_broken_ones_are_not_taken() {
        let (first, second) = (Authority::new(), Authority::new());
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let write = |certificate: (String, String)| {
            std::fs::write(&cert, certificate.0).unwrap();
            std::fs::write(&key, certificate.1).unwrap();
        };
        write(first.signs());
        let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
        let reload_interval = Duration::from_secs(5);
        let config = CollectorTls { cert_file: path(&cert), key_file: path(&key), reload_interval, ..CollectorTls::default() };
        let tls = Tls::of_receiver(&config, "r").unwrap();
        let start = Instant::now();
        let before = tls.now(start);
        write(("no certificate".to_owned(), String::new()));
        assert!(Arc::ptr_eq(&before, &tls.now(start + reload_interval)), "those of before stay");
        write(second.signs());
        assert!(Arc::ptr_eq(&before, &tls.now(start + reload_interval + Duration::from_secs(1))), "not yet");
        tls.now(start + reload_interval * 3);
        meet(&tls, second.client(None, &BOTH)).await.0.unwrap();
        assert!(meet(&tls, first.client(None, &BOTH)).await.0.is_err());
    }

    #[test]
    fn errors_name_the_key_and_no_secret() {
        let authority = Authority::new();
        let (cert, key) = authority.signs();
        let said = |config: CollectorTls| format!("{:#}", Tls::of_receiver(&config, "receivers.otlp.tls").unwrap_err());
        let good = receiver(&(cert.clone(), key.clone()));
        assert!(said(CollectorTls::default()).contains("receivers.otlp.tls: expected both cert_file and key_file"));
        assert!(
            said(CollectorTls { cert_file: "/none".to_owned(), ..good.clone() })
                .contains("receivers.otlp.tls.cert_file: cannot read \"/none\"")
        );
        assert!(said(CollectorTls { cert_pem: key.clone(), ..good.clone() }).contains("tls.cert_file: expected certificates in PEM"));
        assert!(said(CollectorTls { key_pem: cert.into(), ..good.clone() }).contains("tls.key_file: expected a private key in PEM"));
        assert!(said(CollectorTls { key_pem: authority.signs().1.into(), ..good.clone() }).contains("the certificate and its key"));
        assert!(said(CollectorTls { min_version: "2".to_owned(), ..good.clone() }).contains("expected a version of TLS"));
        let unknown = said(CollectorTls { cipher_suites: vec!["X".to_owned()], ..good.clone() });
        assert!(unknown.contains("\"X\" is not a cipher suite") && unknown.contains("TLS_ECDHE_RSA"), "{unknown}");
        assert!(!format!("{:?}", Tls::of_receiver(&good, "r").unwrap()).contains("PRIVATE"));
    }
}
