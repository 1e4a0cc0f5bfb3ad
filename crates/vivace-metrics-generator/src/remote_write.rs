//! Sends series to Prometheus by remote write, version 1: protobuf in snappy's block format over HTTP.
//!
//! Requests wait in a folder until the receiver takes them ([`Backlog`]), so they outlive the process; a [`Sender`] empties it.
//! Source: Prometheus remote write specification.

mod backlog;
mod sender;

use std::time::Duration;

use anyhow::Context as _;
use prost::Message;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use vivace_config::RemoteWrite;
use vivace_proto::prometheus::{TimeSeries, WriteRequest};

pub(crate) use backlog::{Backlog, Room};
pub(crate) use sender::Sender;

/// One receiver.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Where to post.
    pub(crate) url: String,
    /// What tells it from others, in logs and folders.
    pub(crate) name: String,
    /// Headers of every request; values may be secrets.
    pub(crate) headers: HeaderMap,
    /// User and password.
    pub(crate) basic_auth: Option<(String, String)>,
    /// Bound on one attempt.
    pub(crate) timeout: Duration,
    /// First and longest pause after a failure.
    pub(crate) backoff: (Duration, Duration),
    /// Whether a 429 is tried again.
    pub(crate) retries_429: bool,
    /// Series per request, at most.
    pub(crate) request_series_max: usize,
}

impl Target {
    /// Reads an entry of `remote_write`, and the files it names.
    ///
    /// # Errors
    /// What is wrong with it: a file that cannot be read, a header that cannot be sent.
    pub(crate) fn new(entry: &RemoteWrite) -> anyhow::Result<Self> {
        let url = entry.url.expose().to_owned();
        anyhow::ensure!(!url.is_empty(), "metrics_generator.storage.remote_write: an entry without url");
        let mut headers = HeaderMap::new();
        for (name, value) in &entry.headers {
            set_header(&mut headers, name, value.expose()).with_context(|| format!("remote_write: header {name}"))?;
        }
        let bearer = given(entry.bearer_token.expose(), &entry.bearer_token_file, "bearer_token_file")?;
        if !bearer.is_empty() {
            set_header(&mut headers, "authorization", &format!("Bearer {bearer}")).context("remote_write: bearer_token")?;
        }
        if let Some(authorization) = &entry.authorization {
            let file = &authorization.credentials_file;
            let credentials = given(authorization.credentials.expose(), file, "authorization.credentials_file")?;
            let value = format!("{} {credentials}", authorization.kind);
            set_header(&mut headers, "authorization", value.trim()).context("remote_write: authorization")?;
        }
        let basic_auth = match &entry.basic_auth {
            Some(auth) => Some((
                given(&auth.username, &auth.username_file, "basic_auth.username_file")?,
                given(auth.password.expose(), &auth.password_file, "basic_auth.password_file")?,
            )),
            None => None,
        };
        let queue = &entry.queue_config;
        Ok(Self {
            name: if entry.name.is_empty() { format!("{:08x}", crc32fast::hash(url.as_bytes())) } else { entry.name.clone() },
            url,
            headers,
            basic_auth,
            timeout: entry.remote_timeout,
            backoff: (queue.min_backoff.max(Duration::from_millis(1)), queue.max_backoff.max(queue.min_backoff)),
            retries_429: queue.retry_on_http_429,
            request_series_max: queue.max_samples_per_send.max(1),
        })
    }
}

/// Sets a header; a value before goes.
///
/// # Errors
/// The name or the value cannot be sent. The error does not tell the value.
pub(crate) fn set_header(headers: &mut HeaderMap, name: &str, value: &str) -> anyhow::Result<()> {
    let name = HeaderName::try_from(name).context("cannot be the name of a header")?;
    headers.insert(name, HeaderValue::try_from(value).context("its value cannot be sent")?);
    Ok(())
}

/// The body of a request.
pub(crate) fn encode(timeseries: Vec<TimeSeries>) -> Vec<u8> {
    let message = WriteRequest { timeseries }.encode_to_vec();
    snap::raw::Encoder::new().compress_vec(&message).expect("a write request is far below snappy's limit of 4 GiB")
}

/// A value of the configuration, or else the content of the file that one names.
fn given(value: &str, file: &str, key: &str) -> anyhow::Result<String> {
    if !value.is_empty() || file.is_empty() {
        return Ok(value.to_owned());
    }
    let content = std::fs::read_to_string(file).with_context(|| format!("cannot read {key} {file}"))?;
    Ok(content.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use vivace_config::Config;

    use super::*;

    fn targets(entries: &str) -> anyhow::Result<Vec<Target>> {
        let text = format!("metrics_generator: {{storage: {{remote_write: [{entries}]}}}}");
        let (config, _) = Config::parse(&text, "t").expect("it is right");
        config.metrics_generator.storage.remote_write.iter().map(Target::new).collect()
    }

    #[test]
    fn what_authorizes_is_sent() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, content: &str| {
            let path = folder.path().join(name).display().to_string();
            std::fs::write(&path, content).expect("written");
            path
        };
        let (user, password, token) = (file("user", "me\n"), file("password", "pass\n"), file("token", "abc\n"));
        let targets = targets(&format!(
            "{{url: 'http://a', basic_auth: {{username_file: {user}, password_file: {password}}}}}, \
             {{url: 'http://a', bearer_token_file: {token}}}, \
             {{url: 'http://a', authorization: {{credentials_file: {token}}}}}, \
             {{url: 'http://a', authorization: {{type: Token, credentials: x}}}}"
        ))
        .expect("they can be used");
        assert_eq!(targets[0].basic_auth, Some(("me".to_owned(), "pass".to_owned())));
        let sent: Vec<_> = targets[1..].iter().map(|target| target.headers["authorization"].to_str().expect("text")).collect();
        assert_eq!(sent, ["Bearer abc", "Bearer abc", "Token x"]);
    }

    #[test]
    fn what_cannot_be_sent_is_refused_without_being_told() {
        let error = targets("{url: 'http://a', headers: {X-Key: \"sec\\nret\"}}").expect_err("a line break");
        let said = format!("{error:#}");
        assert!(said.contains("X-Key") && !said.contains("sec"), "{said}");
        assert!(targets("{url: 'http://a', bearer_token_file: /does/not/exist}").is_err());
    }
}
