//! TLS as configured, where the client's default is not enough: no verification, an authority of one's own, a client
//! certificate.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use aws_sdk_s3::config::http::{HttpRequest, HttpResponse};
use aws_sdk_s3::config::{RuntimeComponents, SharedHttpClient};
use aws_sdk_s3::error::ConnectorError;
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector, http_client_fn,
};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::Uri;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector as TcpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::time::timeout;
use tower::{BoxError, Service};

use crate::OpenError;

/// A client for these settings; none when they say nothing special. A connection that takes longer than `connect_timeout`,
/// TLS included, fails; until when an answer must have begun is the caller's setting, as with the default client.
pub(super) fn client(config: &vivace_config::S3, connect_timeout: Duration) -> Result<Option<SharedHttpClient>, OpenError> {
    let plain = !config.tls_insecure_skip_verify && config.tls_ca_path.is_empty() && config.tls_cert_path.is_empty();
    if plain {
        return Ok(None);
    }
    let https = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls_config(config)?).https_or_http().enable_http1().build();
    let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(TimedConnector { https, connect_timeout });
    Ok(Some(http_client_fn(move |settings: &HttpConnectorSettings, _: &RuntimeComponents| {
        SharedHttpConnector::new(Connector { client: client.clone(), read_timeout: settings.read_timeout() })
    })))
}

fn tls_config(config: &vivace_config::S3) -> Result<ClientConfig, OpenError> {
    let problem = |key: &str, problem: String| OpenError::Config { path: format!("s3.{key}"), problem };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| problem("tls_min_version", e.to_string()))?;
    let builder = if config.tls_insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(NoVerification(provider)))
    } else {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if !config.tls_ca_path.is_empty() {
            let path = &config.tls_ca_path;
            for certificate in certificates(path).map_err(|e| problem("tls_ca_path", e))? {
                roots.add(certificate).map_err(|e| problem("tls_ca_path", format!("{path} holds a bad certificate: {e}")))?;
            }
        }
        builder.with_root_certificates(roots)
    };
    if config.tls_cert_path.is_empty() {
        return Ok(builder.with_no_client_auth());
    }
    let chain = certificates(&config.tls_cert_path).map_err(|e| problem("tls_cert_path", e))?;
    let key = PrivateKeyDer::from_pem_file(&config.tls_key_path)
        .map_err(|e| problem("tls_key_path", format!("{:?} holds no private key in PEM form: {e}", config.tls_key_path)))?;
    builder.with_client_auth_cert(chain, key).map_err(|e| problem("tls_cert_path", format!("does not go with tls_key_path: {e}")))
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |e: rustls::pki_types::pem::Error| format!("{path:?} holds no certificates in PEM form: {e}");
    CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}

/// Opens connections within a time. The system's own limit for TCP is about two minutes, and TLS has none.
#[derive(Debug, Clone)]
struct TimedConnector {
    https: HttpsConnector<TcpConnector>,
    connect_timeout: Duration,
}

impl Service<Uri> for TimedConnector {
    type Response = <HttpsConnector<TcpConnector> as Service<Uri>>::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Service::<Uri>::poll_ready(&mut self.https, context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, limit) = (self.https.call(uri), self.connect_timeout);
        let connected =
            async move { timeout(limit, connecting).await.unwrap_or_else(|_| Err(format!("no connection within {limit:?}").into())) };
        connected.boxed()
    }
}

#[derive(Debug)]
struct Connector {
    client: Client<TimedConnector, SdkBody>,
    /// Until an answer begins.
    read_timeout: Option<Duration>,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (client, read_timeout) = (self.client.clone(), self.read_timeout);
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x().map_err(|e| ConnectorError::user(e.into()))?;
            let answer = client.request(request);
            let answer = match read_timeout {
                None => answer.await,
                Some(limit) => {
                    timeout(limit, answer).await.map_err(|_| ConnectorError::timeout(format!("no answer within {limit:?}").into()))?
                }
            };
            let response = answer.map_err(|e| ConnectorError::io(e.into()))?;
            HttpResponse::try_from(response.map(SdkBody::from_body_1_x)).map_err(|e| ConnectorError::other(e.into(), None))
        })
    }
}

/// Takes any certificate, as `tls_insecure_skip_verify` asks for. Handshakes are still checked for their form.
#[derive(Debug)]
struct NoVerification(Arc<CryptoProvider>);

impl ServerCertVerifier for NoVerification {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
