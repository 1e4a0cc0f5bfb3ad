//! File descriptors: as many as the system gives, and enough of them kept back from connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The most that are asked for: more than any process here needs, and no more than every kernel takes.
const WANTED: u64 = 1 << 20;
/// Where the system has no limit or does not tell.
const UNKNOWN: u64 = 1 << 20;
/// Kept back at most: the log, blocks and the bucket of the largest process need no more.
const KEPT_BACK_MAX: u64 = 16 << 10;

/// Raises this process' limit as far as it may, and returns how many connections can be served within it.
pub(crate) fn raise_limit() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(WANTED).min(WANTED);
    let mut limit = current.unwrap_or(UNKNOWN);
    if limit < wanted {
        match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }) {
            Ok(()) => {
                tracing::debug!(from = limit, to = wanted, "raised the limit of open files");
                limit = wanted;
            }
            Err(error) => tracing::warn!(limit, wanted, %error, "cannot raise the limit of open files"),
        }
    }
    let connections = connections_within(limit);
    if connections < 1000 {
        tracing::warn!(limit, connections, "few files may be open at once, so few clients are served; raise the limit (ulimit -n)");
    }
    connections
}

/// A third is kept back for the log, blocks, the bucket, and connections to others.
fn connections_within(limit: u64) -> usize {
    let kept_back = (limit / 3).min(KEPT_BACK_MAX);
    usize::try_from(limit - kept_back).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_kept_back() {
        for (limit, connections) in [(1024, 683), (256, 171), (65_536, 49_152), (1 << 20, (1 << 20) - (16 << 10))] {
            assert_eq!(connections_within(limit), connections, "{limit}");
        }
    }

    #[test]
    fn the_limit_is_raised_as_far_as_it_may() {
        let connections = raise_limit();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert!(current.unwrap_or(WANTED) >= maximum.unwrap_or(WANTED).min(WANTED));
        assert_eq!(connections, connections_within(current.unwrap_or(UNKNOWN)));
    }
}
