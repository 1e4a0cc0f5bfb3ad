//! How requests say who sends them. Files with secrets are read for each request, since what is in them may be renewed at any time.

use std::time::Instant;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::HeaderMap;
use vivace_config::{RemoteWrite, Secret};

use super::client::Client;
use super::oauth2::Tokens;
use super::set_header;
use super::sigv4::Signer;

/// The way to authenticate.
#[derive(Debug)]
pub(crate) enum Auth {
    /// Nobody is named.
    None,
    /// User and password.
    Basic(Given, Given),
    /// A word, and a secret after it.
    Header(String, Given),
    /// A token that is fetched.
    Tokens(Box<Tokens>),
    /// A signature by AWS' rules.
    Signature(Box<Signer>),
}

/// A text of the configuration, or else the content of the file that one names.
pub(crate) struct Given {
    text: Secret,
    file: String,
    key: &'static str,
}

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Given").field("key", &self.key).field("file", &self.file).finish_non_exhaustive()
    }
}

impl Auth {
    /// Reads what an entry of `remote_write` says, and once the files it names.
    ///
    /// # Errors
    /// A file cannot be read, a secret cannot be sent.
    pub(crate) fn new(entry: &RemoteWrite) -> anyhow::Result<Self> {
        let auth = if let Some(auth) = &entry.basic_auth {
            let user = Given::new(&auth.username.as_str().into(), &auth.username_file, "basic_auth.username_file");
            Self::Basic(user, Given::new(&auth.password, &auth.password_file, "basic_auth.password_file"))
        } else if let Some(auth) = &entry.authorization {
            let credentials = Given::new(&auth.credentials, &auth.credentials_file, "authorization.credentials_file");
            Self::Header(auth.kind.clone(), credentials)
        } else if let Some(oauth2) = &entry.oauth2 {
            Self::Tokens(Box::new(Tokens::new(oauth2)?))
        } else if let Some(sigv4) = &entry.sigv4 {
            Self::Signature(Box::new(Signer::new(sigv4)))
        } else if entry.bearer_token.is_empty() && entry.bearer_token_file.is_empty() {
            Self::None
        } else {
            Self::Header("Bearer".to_owned(), Given::new(&entry.bearer_token, &entry.bearer_token_file, "bearer_token_file"))
        };
        auth.plain().map(|_| auth)
    }

    /// Adds what names the sender to the headers of a request.
    ///
    /// # Errors
    /// A file cannot be read, a token cannot be had. A later try may succeed.
    pub(crate) async fn authorize(&self, client: &Client, body: &[u8], headers: &mut HeaderMap) -> anyhow::Result<()> {
        let value = match self {
            Self::Tokens(tokens) => Some(tokens.header().await.context("cannot get a token")?),
            Self::Signature(signer) => return signer.sign(client.url(), body, headers).await.context("cannot sign"),
            // Small files, most often in memory.
            _ => self.plain()?,
        };
        value.map_or(Ok(()), |value| set_header(headers, "authorization", &value))
    }

    /// Forgets the token of a request that was refused, which began then. False if there is none that could be another one.
    pub(crate) async fn renew(&self, began: Instant) -> bool {
        let Self::Tokens(tokens) = self else { return false };
        tokens.forget(began).await;
        true
    }

    /// The header of those that need nobody else.
    fn plain(&self) -> anyhow::Result<Option<String>> {
        let value = match self {
            Self::Basic(user, password) => format!("Basic {}", BASE64_STANDARD.encode(format!("{}:{}", user.read()?, password.read()?))),
            Self::Header(kind, credentials) => format!("{kind} {}", credentials.read()?).trim().to_owned(),
            Self::None | Self::Tokens(_) | Self::Signature(_) => return Ok(None),
        };
        set_header(&mut HeaderMap::new(), "authorization", &value)?;
        Ok(Some(value))
    }
}

impl Given {
    /// `key` names the file in errors.
    pub(crate) fn new(text: &Secret, file: &str, key: &'static str) -> Self {
        Self { text: text.clone(), file: file.to_owned(), key }
    }

    /// # Errors
    /// The file cannot be read.
    pub(crate) fn read(&self) -> anyhow::Result<String> {
        if !self.text.is_empty() || self.file.is_empty() {
            return Ok(self.text.expose().to_owned());
        }
        let content = std::fs::read_to_string(&self.file).with_context(|| format!("cannot read {} {}", self.key, self.file))?;
        Ok(content.trim().to_owned())
    }
}
