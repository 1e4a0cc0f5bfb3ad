//! Who is trusted where an address begins with `https://` or `grpcs://`, and who the command line is to the other side.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::Args;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};
use vivace_server::certificates;

/// TLS of connections.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Tls {
    /// Certificates (PEM) that servers are checked against, instead of the system's or those that `SSL_CERT_FILE` names.
    #[arg(long, global = true, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Certificate (PEM) that is shown to servers which ask for one.
    #[arg(long, global = true, value_name = "FILE")]
    cert_file: Option<PathBuf>,
    /// Key (PEM) of that certificate.
    #[arg(long, global = true, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

impl Tls {
    /// For HTTP.
    ///
    /// # Errors
    /// A file cannot be read or is none of what it should be; by option.
    pub(crate) fn http(&self) -> anyhow::Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        match &self.ca_file {
            Some(file) => {
                for certificate in certificates(&read("--ca-file", file)?).with_context(|| format!("--ca-file {}", file.display()))? {
                    roots.add(certificate).with_context(|| format!("--ca-file {}", file.display()))?;
                }
            }
            None => {
                // What is unusable among the system's trusts nobody, which is said where it is missed.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let builder = ClientConfig::builder().with_root_certificates(roots);
        let Some((certificate, key)) = self.identity()? else { return Ok(builder.with_no_client_auth()) };
        let certificate = certificates(&certificate).context("--cert-file")?;
        let key = PrivateKeyDer::from_pem_slice(&key).context("--key-file: expected a private key in PEM")?;
        builder.with_client_auth_cert(certificate, key).context("--cert-file and --key-file")
    }

    /// For gRPC.
    ///
    /// # Errors
    /// As [`Tls::http`].
    pub(crate) fn grpc(&self) -> anyhow::Result<ClientTlsConfig> {
        // Everything is looked at, so that errors are the same.
        self.http()?;
        let config = match &self.ca_file {
            Some(file) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("--ca-file", file)?)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        Ok(match self.identity()? {
            Some((certificate, key)) => config.identity(Identity::from_pem(certificate, key)),
            None => config,
        })
    }

    /// Texts of the own certificate and its key.
    fn identity(&self) -> anyhow::Result<Option<(Vec<u8>, Vec<u8>)>> {
        ensure!(self.cert_file.is_some() == self.key_file.is_some(), "expected both --cert-file and --key-file, or neither");
        let files = self.cert_file.as_ref().zip(self.key_file.as_ref());
        files.map(|(certificate, key)| Ok((read("--cert-file", certificate)?, read("--key-file", key)?))).transpose()
    }
}

fn read(option: &str, file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("{option}: cannot read {}", file.display()))
}
