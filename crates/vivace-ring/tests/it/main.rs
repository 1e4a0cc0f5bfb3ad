//! The crate's public doors: gossip between several members, pools, pages.

mod gossip;
mod heal;
mod local;
mod pages;
mod pool;

use std::time::Duration;

use vivace_ring::{Ring, Snapshot};

/// A fixed clock: what is shown to people is not what is decided on.
fn clock() -> u64 {
    1_700_000_000_000_000_000
}

/// Waits until the ring looks as wanted, and says what it looked like if it never does.
async fn until(ring: Ring, what: &'static str, check: impl Fn(&Snapshot) -> bool) {
    let mut watch = ring.watch();
    let reached = tokio::time::timeout(Duration::from_secs(20), watch.wait_for(|s| check(s))).await.is_ok();
    assert!(reached, "{what}; last seen: {:#?}", watch.borrow().instances());
}
