//! What tenants cost that are many and small. The figures are printed by
//! `cargo test -p vivace-storage --test it thousands -- --ignored --nocapture`.

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "prints figures; its tasks are waited for")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use object_store::{ObjectStore, ObjectStoreExt};
use vivace_config::{Backend, LocalBackend, TraceStorage};
use vivace_storage::{Bucket, PollOptions, Poller};

use crate::{block, clock, tenant};

const TENANTS: usize = 6000;
const DATA: &[u8] = b"PAR1 in name only";

fn options() -> PollOptions {
    PollOptions::from(&TraceStorage::default())
}

fn name(n: usize) -> String {
    format!("customer-{n:05}")
}

/// The objects of one small block of a tenant.
fn objects(n: usize) -> Vec<(String, Vec<u8>)> {
    let (meta, blooms) = block(&tenant(&name(n)), 1, DATA);
    let at = |object: &str| format!("{}/{}/{object}", name(n), meta.block_id);
    let blooms = blooms.into_iter().enumerate().map(|(shard, bytes)| (at(&format!("bloom-{shard}")), bytes));
    let rest = [(at("data.parquet"), DATA.to_vec()), (at("index"), b"{}".to_vec()), (at("meta.json"), meta.to_json())];
    blooms.chain(rest).collect()
}

async fn in_folder(folder: &Path) -> Bucket {
    for (key, bytes) in (0..TENANTS).flat_map(objects) {
        let path = folder.join(key);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, bytes).expect("written");
    }
    let local = LocalBackend { path: folder.display().to_string() };
    let config = TraceStorage { backend: Backend::Local, local, ..Default::default() };
    Bucket::open(&config, &|_| None).await.expect("opens")
}

/// Every call takes 20 ms, as from afar.
async fn afar() -> Bucket {
    let store = InMemory::new();
    for (key, bytes) in (0..TENANTS).flat_map(objects) {
        store.put(&key.into(), bytes.into()).await.expect("stored");
    }
    let wait = Duration::from_millis(20);
    let config = ThrottleConfig {
        wait_get_per_call: wait,
        wait_put_per_call: wait,
        wait_list_per_call: wait,
        wait_list_with_delimiter_per_call: wait,
        wait_delete_per_call: wait,
        ..Default::default()
    };
    let store: Arc<dyn ObjectStore> = Arc::new(ThrottledStore::new(store, config));
    Bucket::of_store(store)
}

/// Seconds of CPU that this process has used.
fn cpu() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum();
    ticks as f64 / 100.0
}

/// A poll, and how long it was until the whole bucket counted as looked at.
async fn poll(what: &str, poller: &Poller) {
    let (begun, cpu_before) = (Instant::now(), cpu());
    let list = poller.blocklist();
    let first = tokio::spawn(async move {
        while !list.is_polled() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        begun.elapsed()
    });
    let report = poller.poll_once().await.expect("polled");
    assert_eq!((report.polled.len(), report.failed.len()), (TENANTS, 0));
    let ready = first.await.expect("no panic").min(begun.elapsed());
    println!("{what:34} known after {ready:>8.2?}, done after {:>8.2?}, CPU {:.2} s", begun.elapsed(), cpu() - cpu_before);
}

async fn figures(bucket: Bucket) {
    let builder = || Poller::builder(bucket.clone(), options(), clock, |_| true);
    let first = builder();
    poll("builder, no index is there yet", &first).await;
    poll("builder, again", &first).await;
    poll("builder, started anew", &builder()).await;
    let reader = Poller::reader(bucket.clone(), options(), clock);
    // A query of one tenant while the first poll goes on.
    let (asking, begun) = (reader.clone(), Instant::now());
    let asked = tokio::spawn(async move {
        asking.ensure(&tenant(&name(TENANTS - 1))).await.expect("looked up");
        begun.elapsed()
    });
    poll("reader, started anew", &reader).await;
    println!("{:34} {:.2?}", "a query of one tenant meanwhile", asked.await.expect("no panic"));
    poll("reader, again", &reader).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute; prints figures"]
async fn thousands_of_tenants_in_a_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    figures(in_folder(folder.path()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; prints figures"]
async fn thousands_of_tenants_afar() {
    figures(afar().await).await;
}
