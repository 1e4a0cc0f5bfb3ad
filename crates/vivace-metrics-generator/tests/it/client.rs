//! The ways to a receiver: TLS, proxies, tokens, signatures, and what its rules make of series.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use vivace_proto::otlp::TracesData;
use vivace_proto::prometheus::metric_metadata::MetricType;
use vivace_server::clock;
use vivace_testkit::TraceBuilder;

use crate::receiver::Receiver;
use crate::running::{Running, until};

const LIMITS: &str = "processors: [span-metrics]";

fn trace() -> TracesData {
    TraceBuilder::new(1, "shop", clock::unix_nanos()).span("pay", &[]).build()
}

/// Pushes a trace and waits until its series have come.
async fn arrives(receiver: &Receiver, url: &str, storage: &str, limits: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let generator = Running::start(folder.path(), url, storage, limits).await;
    generator.push("acme", &trace(), false).await;
    until("series come", || async { !receiver.series().is_empty() }).await;
    generator.stop().await;
}

/// An authority and what it signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed"))
    }

    /// A certificate and its key, PEM.
    fn signs(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new(vec![name.to_owned()]).expect("a name").signed_by(&key, &self.0).expect("signed");
        (certificate.pem(), key.serialize_pem())
    }

    /// A server of this name, which wants a certificate of this authority from clients.
    fn server(&self, name: &str) -> ServerConfig {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("an authority");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().expect("a verifier");
        let (cert, key) = self.signs(name);
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
        let certs = vec![CertificateDer::from_pem_slice(cert.as_bytes()).expect("PEM")];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
        let mut config = builder.with_client_cert_verifier(verifier).with_single_cert(certs, key).expect("they fit");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }
}

fn file(folder: &Path, name: &str, content: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).expect("written");
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_show_certificates() {
    let (folder, authority) = (tempfile::tempdir().expect("a folder"), Authority::new());
    let (cert, key) = authority.signs("generator");
    let ca = file(folder.path(), "ca", &authority.0.pem());
    let (cert, key) = (file(folder.path(), "cert", &cert), file(folder.path(), "key", &key));
    let own = format!("cert_file: {cert}, key_file: {key}");
    for (name, tls) in [
        ("127.0.0.1", format!("ca_file: {ca}, {own}")),
        ("127.0.0.1", format!("ca_file: {ca}, {own}, min_version: TLS13")),
        ("127.0.0.1", format!("ca_file: {ca}, {own}, max_version: TLS12")),
        // Called by the name in its certificate, found by its address.
        ("metrics.example", format!("ca_file: {ca}, {own}, server_name: metrics.example")),
        ("metrics.example", format!("insecure_skip_verify: true, {own}")),
    ] {
        let receiver = Receiver::start_tls(authority.server(name)).await;
        let url = format!("https://{}/api/v1/write", receiver.addr);
        arrives(&receiver, &url, &format!(", tls_config: {{{tls}}}"), LIMITS).await;
        assert!(receiver.headers().iter().all(|headers| headers.get("host").is_none_or(|host| host == &receiver.addr.to_string())));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_trusted_gets_nothing() {
    let (folder, authority) = (tempfile::tempdir().expect("a folder"), Authority::new());
    let ca = file(folder.path(), "ca", &authority.0.pem());
    let (cert, key) = authority.signs("generator");
    let own = format!("cert_file: {}, key_file: {}", file(folder.path(), "cert", &cert), file(folder.path(), "key", &key));
    // Of another authority, by another name, and nobody.
    let other = Authority::new();
    let stranger = file(folder.path(), "other", &other.0.pem());
    for tls in
        [format!("ca_file: {stranger}, {own}"), format!("ca_file: {ca}, {own}, server_name: other.example"), format!("ca_file: {ca}")]
    {
        let receiver = Receiver::start_tls(authority.server("127.0.0.1")).await;
        let url = format!("https://{}/api/v1/write", receiver.addr);
        let data = tempfile::tempdir().expect("a folder");
        let storage = format!(", queue_config: {{min_backoff: 1ms, max_backoff: 5ms}}, tls_config: {{{tls}}}");
        let generator = Running::start(data.path(), &url, &storage, LIMITS).await;
        generator.push("acme", &trace(), false).await;
        // Tried, again and again.
        let waits = || std::fs::read_dir(data.path().join("acme/remote-write")).is_ok_and(|mut folders| folders.next().is_some());
        until("something waits", || async { waits() }).await;
        generator.kill().await;
        assert!(receiver.headers().is_empty(), "{tls}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_asked_for_other_hosts_only() {
    let proxy = Receiver::start().await;
    let storage = format!(", proxy_url: 'http://{}', no_proxy: 'localhost,127.0.0.1'", proxy.addr);
    arrives(&proxy, "http://metrics.invalid/api/v1/write", &storage, LIMITS).await;
    assert!(proxy.headers().iter().all(|headers| headers["host"] == "metrics.invalid"));
    let (receiver, before) = (Receiver::start().await, proxy.headers().len());
    arrives(&receiver, &receiver.url(), &storage, LIMITS).await;
    assert_eq!(proxy.headers().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_fetched_and_renewed() {
    let (folder, receiver) = (tempfile::tempdir().expect("a folder"), Receiver::start().await);
    receiver.wants_token();
    let token_url = format!("http://{}/token", receiver.addr);
    let storage = format!(
        ", oauth2: {{client_id: me, client_secret: 'pass word', token_url: '{token_url}', scopes: [a, b], endpoint_params: {{audience: all}}}}"
    );
    let generator = Running::start(folder.path(), &receiver.url(), &storage, LIMITS).await;
    generator.push("acme", &trace(), false).await;
    until("series come", || async { !receiver.series().is_empty() }).await;
    let asked = receiver.asked();
    for part in ["grant_type=client_credentials", "scope=a+b", "audience=all", "client_id=me", "client_secret=pass+word"] {
        assert!(asked[0].contains(part), "{asked:?}");
    }
    assert_eq!(asked.len(), 1, "it is kept");
    // It is taken back before its time: nothing is lost, another one is fetched.
    receiver.wants_token();
    let before = receiver.series().len();
    until("series come again", || async { receiver.series().len() > before }).await;
    generator.stop().await;
    let samples = receiver.samples("traces_spanmetrics_calls_total", &[("span_name", "pay")]);
    assert!(samples.is_sorted_by(|a, b| a.0 < b.0), "{samples:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_signed_for_aws() {
    let receiver = Receiver::start().await;
    let storage = ", sigv4: {region: eu-west-1, access_key: AKIDEXAMPLE, secret_key: s}";
    arrives(&receiver, &receiver.url(), storage, LIMITS).await;
    for headers in receiver.headers() {
        let authorization = headers["authorization"].to_str().expect("text");
        assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"), "{authorization}");
        assert!(authorization.contains("/eu-west-1/aps/aws4_request, SignedHeaders=host;x-amz-date, Signature="), "{authorization}");
        assert!(headers.contains_key("x-amz-date"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_followed_unless_they_must_not() {
    let receiver = Receiver::start().await;
    let url = format!("http://{}/moved", receiver.addr);
    arrives(&receiver, &url, ", round_robin_dns: true", LIMITS).await;
    let (folder, other) = (tempfile::tempdir().expect("a folder"), Receiver::start().await);
    let url = format!("http://{}/moved", other.addr);
    let generator = Running::start(folder.path(), &url, ", follow_redirects: false", LIMITS).await;
    generator.push("acme", &trace(), false).await;
    generator.stop().await;
    assert!(other.headers().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_change_what_a_receiver_gets() {
    let receiver = Receiver::start().await;
    let storage = ", write_relabel_configs: [{source_labels: [__name__], regex: '.*_(bucket|size_total)', action: drop}, \
                   {regex: '__metrics_gen_instance', action: labeldrop}, {target_label: cluster, replacement: demo}]";
    arrives(&receiver, &receiver.url(), storage, LIMITS).await;
    let series = receiver.series();
    let value = |name: &str| -> std::collections::BTreeSet<String> {
        series
            .iter()
            .map(|series| series.labels.iter().find(|label| label.name == name).map_or(String::new(), |l| l.value.clone()))
            .collect()
    };
    let want = ["traces_spanmetrics_calls_total", "traces_spanmetrics_latency_count", "traces_spanmetrics_latency_sum"];
    assert_eq!(value("__name__").into_iter().collect::<Vec<_>>(), want);
    assert_eq!(value("cluster").into_iter().collect::<Vec<_>>(), ["demo"]);
    assert_eq!(value("__metrics_gen_instance").into_iter().collect::<Vec<_>>(), [""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_said_what_metrics_are() {
    let receiver = Receiver::start().await;
    arrives(
        &receiver,
        &receiver.url(),
        ", http_headers: {X-Many: {values: [a], secrets: [b]}}",
        "processors: [span-metrics, service-graphs]",
    )
    .await;
    let metadata = receiver.metadata();
    let is = |name: &str| metadata.iter().find(|of| of.metric_family_name == name).map(|of| (of.r#type(), of.help.is_empty()));
    assert_eq!(is("traces_spanmetrics_calls_total"), Some((MetricType::Counter, false)));
    assert_eq!(is("traces_spanmetrics_latency"), Some((MetricType::Histogram, false)));
    assert_eq!(is("traces_service_graph_request_total"), Some((MetricType::Counter, false)));
    assert_eq!(is("traces_target_info"), None);
    assert_eq!(metadata.len(), 7, "once a minute: {metadata:?}");
    assert!(receiver.headers().iter().all(|headers| headers.get_all("x-many").iter().collect::<Vec<_>>() == ["a", "b"]));
    let silent = Receiver::start().await;
    arrives(&silent, &silent.url(), ", metadata_config: {send: false}", LIMITS).await;
    assert_eq!(silent.metadata(), []);
}

/// A receiver that never ends its answer keeps nobody waiting, and fills no memory.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_read_so_far_only() {
    let (folder, receiver) = (tempfile::tempdir().expect("a folder"), Receiver::start().await);
    let url = format!("http://{}/endless", receiver.addr);
    let generator = Running::start(folder.path(), &url, ", remote_timeout: 10m", LIMITS).await;
    generator.push("acme", &trace(), false).await;
    let backlog = folder.path().join("acme/remote-write");
    let waits = || {
        std::fs::read_dir(&backlog)
            .into_iter()
            .flatten()
            .flatten()
            .any(|f| std::fs::read_dir(f.path()).is_ok_and(|mut f| f.next().is_some()))
    };
    until("something waits", || async { waits() }).await;
    // A refusal that was read is final, so that the backlog becomes empty between two collections.
    until("nothing does", || async { !waits() }).await;
    generator.stop().await;
}
