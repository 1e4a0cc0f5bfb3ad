//! Tokens of OAuth 2 for the client itself (RFC 6749, section 4.4), kept until shortly before they end.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use tokio::sync::Mutex;
use vivace_config::OAuth2;

use super::auth::Given;
use super::client::{Client, ClientOptions, beginning};

/// A token is renewed so long before its end.
const RENEWED_BEFORE: Duration = Duration::from_secs(10);

/// Longest wait for a token.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Longer answers are cut, and are none.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Fetches tokens, one at a time.
#[derive(Debug)]
pub(crate) struct Tokens {
    client: Client,
    id: String,
    secret: Given,
    /// What is sent beside who asks.
    form: Vec<(String, String)>,
    current: Mutex<Option<Token>>,
}

struct Token {
    header: String,
    fetched: Instant,
    /// None is never.
    ends: Option<Instant>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("ends", &self.ends).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    #[serde(default)]
    token_type: String,
    /// Seconds, which some servers write as a text.
    #[serde(default)]
    expires_in: serde_json::Value,
}

impl Tokens {
    /// # Errors
    /// A file that cannot be read, a URL that is none.
    pub(crate) fn new(oauth2: &OAuth2) -> anyhow::Result<Self> {
        let mut form = vec![("grant_type".to_owned(), "client_credentials".to_owned())];
        if !oauth2.scopes.is_empty() {
            form.push(("scope".to_owned(), oauth2.scopes.join(" ")));
        }
        form.extend(oauth2.endpoint_params.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())));
        let secret = Given::new(&oauth2.client_secret, &oauth2.client_secret_file, "oauth2.client_secret_file");
        secret.read()?;
        let client = Client::new(ClientOptions::of_tokens(oauth2)?).context("oauth2")?;
        Ok(Self { client, id: oauth2.client_id.clone(), secret, form, current: Mutex::new(None) })
    }

    /// The value of an `Authorization` header.
    ///
    /// # Errors
    /// No token can be had.
    pub(crate) async fn header(&self) -> anyhow::Result<String> {
        let mut current = self.current.lock().await;
        if let Some(token) = &*current
            && token.ends.is_none_or(|ends| Instant::now() + RENEWED_BEFORE < ends)
        {
            return Ok(token.header.clone());
        }
        let token = current.insert(self.fetch().await?);
        Ok(token.header.clone())
    }

    /// Forgets a token that was there already when a request began that was refused. A newer one may be taken.
    pub(crate) async fn forget(&self, began: Instant) {
        let mut current = self.current.lock().await;
        current.take_if(|token| token.fetched <= began);
    }

    async fn fetch(&self) -> anyhow::Result<Token> {
        let secret = self.secret.read()?;
        let encode = |text: &str| -> String { form_urlencoded::byte_serialize(text.as_bytes()).collect() };
        // Some servers want the client in a header, others in the form; as RFC 6749 says, the header goes first.
        let in_header = self.client.post().basic_auth(encode(&self.id), Some(encode(&secret))).form(&self.form).timeout(TIMEOUT).send();
        let mut answer = in_header.await.map_err(reqwest::Error::without_url)?;
        if matches!(answer.status().as_u16(), 400 | 401) {
            let mut form = self.form.clone();
            form.extend([("client_id".to_owned(), self.id.clone()), ("client_secret".to_owned(), secret)]);
            answer = self.client.post().form(&form).timeout(TIMEOUT).send().await.map_err(reqwest::Error::without_url)?;
        }
        let status = answer.status();
        let body = beginning(answer, ANSWER_BYTES_MAX).await?;
        if !status.is_success() {
            bail!("status {status}: {}", String::from_utf8_lossy(&body).chars().take(300).collect::<String>());
        }
        let answer: Answer = serde_json::from_slice(&body).context("expected JSON with access_token")?;
        ensure!(!answer.access_token.is_empty(), "expected an access_token; got an empty one");
        let seconds = answer.expires_in.as_u64().or_else(|| answer.expires_in.as_str()?.parse().ok()).filter(|seconds| *seconds > 0);
        let kind =
            if answer.token_type.is_empty() || answer.token_type.eq_ignore_ascii_case("bearer") { "Bearer" } else { &answer.token_type };
        let fetched = Instant::now();
        let ends = seconds.and_then(|seconds| fetched.checked_add(Duration::from_secs(seconds)));
        Ok(Token { header: format!("{kind} {}", answer.access_token), fetched, ends })
    }
}
