//! Sends series to Prometheus by remote write, version 1: protobuf in snappy's block format over HTTP.
//!
//! Requests wait in a folder until the receiver takes them ([`Backlog`]), so they outlive the process; a [`Sender`] empties it.
//! Source: Prometheus remote write specification.

mod auth;
mod backlog;
mod client;
mod metadata;
mod oauth2;
mod parts;
mod relabel;
mod sender;
mod sigv4;

use std::time::Duration;

use anyhow::Context as _;
use prost::Message;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use vivace_config::RemoteWrite;
use vivace_proto::prometheus::{MetricMetadata, TimeSeries, WriteRequest};

pub(crate) use backlog::{Backlog, Room};
pub(crate) use metadata::metadata;
pub(crate) use relabel::Rules;
pub(crate) use sender::Sender;

use auth::Auth;
use client::{Client, ClientOptions};

/// Receivers answer with 500 while they start or are overloaded, too.
const PATIENCE: Duration = Duration::from_secs(60);

/// One receiver.
#[derive(Debug)]
pub(crate) struct Target {
    /// Where to post, without its password: for logs and metrics.
    pub(crate) url: String,
    /// What tells it from others, in logs and folders.
    pub(crate) name: String,
    client: Client,
    auth: Auth,
    /// Headers of every request; values may be secrets.
    headers: HeaderMap,
    /// Change what is sent.
    pub(crate) rules: Rules,
    /// Pause between what says what metrics are; none is never.
    pub(crate) metadata_interval: Option<Duration>,
    /// Bound on one attempt.
    timeout: Duration,
    /// First and longest pause after a failure.
    backoff: (Duration, Duration),
    /// Whether a 429 is tried again.
    retries_429: bool,
    /// Series per request, at most.
    pub(crate) request_series_max: usize,
    /// Requests on their way at once, at least and at most, and the series waiting for which there is one more.
    shards: (usize, usize),
    shard_series: u64,
    /// Series that have waited longer are dropped; none is never.
    age_max: Option<Duration>,
    /// A request that fails so long with 500 may be at fault itself.
    patience: Duration,
}

impl Target {
    /// Reads an entry of `remote_write`, and the files it names.
    ///
    /// # Errors
    /// What is wrong with it: a file that cannot be read, a header that cannot be sent.
    pub(crate) fn new(entry: &RemoteWrite) -> anyhow::Result<Self> {
        let at = || format!("metrics_generator.storage.remote_write {}", entry.url.masked());
        anyhow::ensure!(!entry.url.is_empty(), "metrics_generator.storage.remote_write: an entry without url");
        let client = ClientOptions::of_receiver(entry).and_then(Client::new).with_context(at)?;
        let queue = &entry.queue_config;
        let hash = || format!("{:08x}", crc32fast::hash(entry.url.expose().as_bytes()));
        Ok(Self {
            name: if entry.name.is_empty() { hash() } else { entry.name.clone() },
            url: entry.url.masked(),
            client,
            auth: Auth::new(entry).with_context(at)?,
            headers: headers(entry).with_context(at)?,
            rules: Rules::new(&entry.write_relabel_configs).with_context(at)?,
            metadata_interval: entry.metadata_config.send.then_some(entry.metadata_config.send_interval),
            timeout: entry.remote_timeout,
            backoff: (queue.min_backoff.max(Duration::from_millis(1)), queue.max_backoff.max(queue.min_backoff)),
            retries_429: queue.retry_on_http_429,
            request_series_max: queue.max_samples_per_send.max(1),
            shards: (queue.min_shards.max(1), queue.max_shards.max(queue.min_shards).max(1)),
            shard_series: queue.capacity.max(1) as u64,
            age_max: Some(queue.sample_age_limit).filter(|limit| !limit.is_zero()),
            patience: PATIENCE,
        })
    }

    /// Requests that may be on their way at once while so many series wait.
    fn parallel(&self, waiting_series: u64) -> usize {
        let wanted = usize::try_from(waiting_series.div_ceil(self.shard_series)).unwrap_or(usize::MAX);
        wanted.clamp(self.shards.0, self.shards.1)
    }
}

fn headers(entry: &RemoteWrite) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in &entry.headers {
        set_header(&mut headers, name, value.expose()).with_context(|| format!("header {name}"))?;
    }
    for (name, of) in &entry.http_headers {
        let mut values: Vec<String> = of.values.iter().cloned().chain(of.secrets.iter().map(|secret| secret.expose().to_owned())).collect();
        for file in &of.files {
            let content = std::fs::read_to_string(file).with_context(|| format!("cannot read http_headers.{name}.files {file}"))?;
            values.push(content.trim().to_owned());
        }
        for value in values {
            let name = HeaderName::try_from(name).with_context(|| format!("http_headers: {name} cannot be the name of a header"))?;
            headers.append(name, HeaderValue::try_from(value).context("http_headers: a value cannot be sent")?);
        }
    }
    Ok(headers)
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
pub(crate) fn encode(timeseries: Vec<TimeSeries>, metadata: Vec<MetricMetadata>) -> Vec<u8> {
    let message = WriteRequest { timeseries, metadata }.encode_to_vec();
    snap::raw::Encoder::new().compress_vec(&message).expect("a write request is far below snappy's limit of 4 GiB")
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
        let sent = |target: &Target| {
            let mut headers = HeaderMap::new();
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(target.auth.authorize(&target.client, b"", &mut headers))?;
            anyhow::Ok(headers["authorization"].to_str().expect("text").to_owned())
        };
        let all: Vec<_> = targets.iter().map(|target| sent(target).expect("readable")).collect();
        assert_eq!(all, ["Basic bWU6cGFzcw==", "Bearer abc", "Bearer abc", "Token x"]);
        std::fs::write(&token, "renewed").expect("written");
        assert_eq!(sent(&targets[1]).expect("readable"), "Bearer renewed");
        std::fs::remove_file(&token).expect("it was there");
        assert!(sent(&targets[1]).expect_err("gone").to_string().contains("bearer_token_file"));
    }

    #[test]
    fn what_cannot_be_sent_is_refused_without_being_told() {
        let error = targets("{url: 'http://a', headers: {X-Key: \"sec\\nret\"}}").expect_err("a line break");
        let said = format!("{error:#}");
        assert!(said.contains("X-Key") && !said.contains("sec"), "{said}");
        for entry in [
            "bearer_token_file: /does/not/exist",
            "tls_config: {ca_file: /does/not/exist}",
            "tls_config: {ca: nonsense}",
            "tls_config: {cert: a, key: b}",
            "proxy_url: 'not a url', tls_config: {}",
            "oauth2: {client_id: a, token_url: 'http://a', client_secret_file: /does/not/exist}",
            "http_headers: {X-Key: {files: [/does/not/exist]}}",
        ] {
            let said = targets(&format!("{{url: 'http://me:secret@a', {entry}}}")).map(|_| ()).expect_err(entry);
            assert!(!format!("{said:#}").contains("secret@"), "{said:#}");
        }
    }

    #[test]
    fn more_is_sent_at_once_the_more_waits() {
        let target = &targets("{url: 'http://a', queue_config: {capacity: 100, min_shards: 2, max_shards: 5}}").expect("it is right")[0];
        let parallel = [0, 100, 250, 301, 10_000].map(|series| target.parallel(series));
        assert_eq!(parallel, [2, 2, 3, 4, 5]);
    }
}
