//! What is said of objects that are not what they should be.

use std::num::NonZeroUsize;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;

use crate::metrics::BAD_OBJECTS;

/// The same object is named in the log at most this often; it is met at every poll.
const SAID_AGAIN_AFTER: Duration = Duration::from_secs(3600);

/// Objects whose last mention is remembered.
const SAID_MAX: NonZeroUsize = NonZeroUsize::new(4096).expect("is not 0");

/// Names in the log are cut after so many characters.
const NAME_CHARS: usize = 300;

static SAID: LazyLock<Mutex<LruCache<(String, String), Instant>>> = LazyLock::new(|| Mutex::new(LruCache::new(SAID_MAX)));

/// Counts an object that is not what it should be in `vivace_storage_bad_objects_total`, and names it in the log; the same
/// one at most once an hour. `tenant` is empty for what lies above all tenants.
pub fn report_bad_object(tenant: &(impl ToString + ?Sized), key: &str, reason: &str) {
    let tenant = tenant.to_string();
    metrics::counter!(BAD_OBJECTS.name, "tenant" => tenant.clone()).increment(1);
    let key: String = key.chars().take(NAME_CHARS).collect();
    if !is_news(&tenant, &key, Instant::now()) {
        return;
    }
    tracing::warn!(tenant, key, reason, "skipped an object in the bucket that could not be used");
}

fn is_news(tenant: &str, key: &str, now: Instant) -> bool {
    let last = SAID.lock().put((tenant.to_owned(), key.to_owned()), now);
    let is_known = last.filter(|last| now.duration_since(*last) < SAID_AGAIN_AFTER);
    if let Some(last) = is_known {
        // Its hour counts from when it was said.
        SAID.lock().put((tenant.to_owned(), key.to_owned()), last);
    }
    is_known.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_named_once_an_hour() {
        let begun = Instant::now();
        let at = |minutes: u64| begun + Duration::from_secs(60 * minutes);
        let news: Vec<bool> = [0, 5, 59, 60, 65, 121].map(|minutes| is_news("tests", "a/readme.txt", at(minutes))).to_vec();
        assert_eq!(news, [true, false, false, true, false, true]);
        assert!(is_news("tests", "b/readme.txt", begun));
    }
}
