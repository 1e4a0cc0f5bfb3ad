//! What thousands of tenants with a few spans each cost.

use std::time::{Duration, Instant};

use vivace_proto::vivace::v1::PushRequest;

use crate::running::{Place, Running, segment, spans, until};

/// CPU time of this process so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("readable");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}

async fn fill(ingester: &Running, tenants: u64) {
    for n in 1..=tenants {
        let request = PushRequest { tenant: format!("tenant-{n}"), ..segment(n, &spans(&[(1, 3 * n), (1, 3 * n + 1), (2, 3 * n + 2)])) };
        ingester.push(request).await.expect("taken");
    }
}

/// Look-ups one after the other until `done`; the slowest, and how many.
async fn look_up_while<F: Future<Output = bool>>(ingester: &Running, mut is_over: impl FnMut() -> F) -> (Duration, u32) {
    let (mut slowest, mut count) = (Duration::ZERO, 0);
    while !is_over().await {
        let started = Instant::now();
        ingester.find(1).await;
        slowest = slowest.max(started.elapsed());
        count += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (slowest, count)
}

/// Run by hand for `docs/benchmarks.md`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn six_thousand_tenants() {
    const TENANTS: u64 = 6000;
    let mut place = Place::new();
    place.config.ingester.flush_check_period = Duration::from_secs(10);
    place.config.ingester.concurrent_flushes = 4;
    let ingester = place.start().await;
    ingester.push(segment(1_000_000, &spans(&[(1, 1)]))).await.expect("taken");
    let (started, before) = (Instant::now(), cpu());
    fill(&ingester, TENANTS).await;
    let pushed = (started.elapsed(), cpu() - before);
    ingester.kill().await;
    let (started, before) = (Instant::now(), cpu());
    let ingester = place.start().await;
    let replayed = (started.elapsed(), cpu() - before);
    let (started, before) = (Instant::now(), cpu());
    ingester.get("/flush").await;
    let (slowest, count) =
        look_up_while(&ingester, || async { place.log_bytes() < 100 || started.elapsed() > Duration::from_secs(300) }).await;
    let flushed = (started.elapsed(), cpu() - before);
    let (started, before) = (Instant::now(), cpu());
    ingester.kill().await;
    let ingester = place.start().await;
    let restarted = (started.elapsed(), cpu() - before);
    let blocks = place.bucket.tenants().await.expect("listed").len();
    let report = format!(
        "{TENANTS} tenants, {blocks} with blocks\nwall and CPU:\npush {pushed:?}\nreplay {replayed:?}\nflush {flushed:?}, {count} look-ups meanwhile, the slowest {slowest:?}\nstart with served blocks {restarted:?}\n"
    );
    std::fs::write(std::env::temp_dir().join("six_thousand_tenants.txt"), &report).expect("written");
    until("what was flushed is found", || async { ingester.find(1).await == [1] }).await;
    ingester.stop().await;
}
