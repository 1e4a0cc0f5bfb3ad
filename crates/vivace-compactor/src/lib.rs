//! Upkeep of the bucket: merges blocks, deletes old ones, and writes the tenant indexes that queriers read.
//!
//! A merged block is stored before its inputs are marked, so a crash in between leaves spans twice, and none is lost.
//! What to do is decided in pure functions ([`select`], [`retention`]); [`Compactor`] does it. Start with [`start`].

mod compactor;
pub mod merge;
mod metrics;
mod owner;
pub mod retention;
pub mod select;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use vivace_config::{Config, KvStore};
use vivace_ring::{Membership, Registration, Role, State};
use vivace_server::{Overrides, Process, clock, host_name};
use vivace_storage::{Bucket, PollOptions, Poller};

pub use compactor::{CompactError, Compactor, Outcome};
pub use owner::Owner;

/// What the compactor counts.
pub const METRICS: &[vivace_core::metric::Metric] = crate::metrics::ALL;

/// Adds a compactor to a process. With `compactor.ring.kvstore.store: memberlist` the work is shared by the members of
/// its ring; else all of it is this process' own.
///
/// Returns the poller whose block list is kept up to date, for services in the same process.
///
/// # Errors
/// The folder for merged blocks, below `storage.trace.wal.path`, cannot be used.
pub async fn start(
    config: &Config,
    membership: &Membership,
    bucket: Bucket,
    overrides: Arc<Overrides>,
    process: &mut Process,
) -> anyhow::Result<Poller> {
    let section = &config.compactor;
    let owner = match section.ring.kvstore.store {
        KvStore::None | KvStore::Inmemory => Owner::of_everything(),
        _ => {
            let registration = Registration::of_service(&section.ring, membership, &host_name(), process.grpc_addr());
            let owner = Owner::member(membership.ring(Role::Compactor), &registration.id);
            membership.register(Role::Compactor, registration, State::Active).await;
            let leaving = membership.clone();
            process.on_drain("compactor", move || {
                Box::pin(async move {
                    leaving.set_state(Role::Compactor, State::Leaving).await;
                    Ok(())
                })
            });
            owner
        }
    };

    let options = PollOptions::from(&config.storage.trace);
    let builders = config.storage.trace.blocklist_poll_tenant_index_builders;
    let builder = owner.clone();
    let poller = Poller::builder(bucket.clone(), options.clone(), clock::unix_nanos, move |tenant| {
        (0..builders).any(|i| builder.owns(&format!("build-tenant-index-{i}-{tenant}")))
    });
    let (polling, stop) = (poller.clone(), process.stop_token());
    process.spawn("block list", async move {
        polling.run(stop).await;
        Ok(())
    });
    let blocklist = poller.blocklist();
    process.ready_check("compactor", {
        let blocklist = blocklist.clone();
        move || if blocklist.is_polled() { Ok(()) } else { Err("the bucket has not been listed yet".to_owned()) }
    });
    if section.disabled {
        return Ok(poller);
    }

    let work_dir = Path::new(&config.storage.trace.wal.path).join("compaction");
    let compactor = Compactor::new(config, bucket, blocklist, owner, overrides, work_dir.clone())
        .with_context(|| format!("cannot use {} for merged blocks", work_dir.display()))?;
    let compactor = Arc::new(compactor);
    let (compacting, stop) = (compactor.clone(), process.stop_token());
    process.spawn("compaction", async move {
        compacting.run_compaction(stop).await;
        Ok(())
    });
    let stop = process.stop_token();
    process.spawn("retention", async move {
        compactor.run_retention(options.interval, stop).await;
        Ok(())
    });
    Ok(poller)
}
