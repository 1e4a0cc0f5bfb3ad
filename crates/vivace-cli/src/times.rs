//! The options that say which time a question is about, the same for all that have one. Where nothing is said it is the last
//! hour, by this machine's clock.

use anyhow::{Context, bail};
use clap::Args;

/// The range of time that a question is about.
#[derive(Debug, Args)]
pub(crate) struct Times {
    /// How far back to look, such as 30m, 6h or 2d.
    #[arg(long, conflicts_with_all = ["start", "end"])]
    since: Option<String>,
    /// Start of the range: seconds since 1970, or RFC 3339.
    #[arg(long)]
    start: Option<String>,
    /// End of the range; now if only the start is given.
    #[arg(long)]
    end: Option<String>,
}

const HOUR: u64 = 3600;

impl Times {
    /// Start and end in seconds since 1970. Nothing given is the last hour.
    pub(crate) fn range(&self, now_seconds: u64) -> anyhow::Result<(u64, u64)> {
        let end = self.end.as_deref().map(|end| seconds(end).context("--end")).transpose()?.unwrap_or(now_seconds);
        let start = match (&self.since, &self.start) {
            (Some(since), _) => {
                let since = vivace_config::parse_duration(since)
                    .map_err(|why| anyhow::anyhow!("--since {since:?}, {why}: expected 30m, 6h or 2d"))?;
                end.saturating_sub(since.as_secs().max(1))
            }
            (None, Some(start)) => seconds(start).context("--start")?,
            (None, None) => end.saturating_sub(HOUR),
        };
        if start >= end {
            bail!("the range ends ({end}) before it starts ({start})");
        }
        Ok((start, end))
    }

    /// The range as parameters of the API.
    pub(crate) fn parameters(&self) -> anyhow::Result<Vec<(&'static str, String)>> {
        let (start, end) = self.range(vivace_server::clock::unix_seconds())?;
        // The last second counts too.
        Ok(vec![("start", start.to_string()), ("end", (end + 1).to_string())])
    }
}

fn seconds(text: &str) -> anyhow::Result<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        return text.parse().with_context(|| format!("{text} seconds are too many"));
    }
    let nanos = vivace_block::parse_rfc3339(text);
    nanos.map(|nanos| nanos / 1_000_000_000).map_err(|why| anyhow::anyhow!("{text:?} is neither seconds since 1970 nor RFC 3339 ({why})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(since: Option<&str>, start: Option<&str>, end: Option<&str>) -> Times {
        let own = |text: Option<&str>| text.map(str::to_owned);
        Times { since: own(since), start: own(start), end: own(end) }
    }

    #[test]
    fn ranges_are_completed() {
        let now = 1_700_000_000;
        for (times, want) in [
            (times(None, None, None), (now - 3600, now)),
            (times(Some("2d"), None, None), (now - 2 * 86400, now)),
            (times(None, Some("1600000000"), None), (1_600_000_000, now)),
            (times(None, Some("2023-11-14T00:00:00Z"), Some("2023-11-14T01:00:00Z")), (1_699_920_000, 1_699_923_600)),
        ] {
            assert_eq!(times.range(now).expect("a range"), want);
        }
        for (wrong, why) in [
            (times(Some("soon"), None, None), "--since"),
            (times(None, Some("yesterday"), None), "--start"),
            (times(None, Some("9999999999"), None), "before it starts"),
        ] {
            let error = format!("{:#}", wrong.range(now).expect_err(why));
            assert!(error.contains(why), "{error}");
        }
    }
}
