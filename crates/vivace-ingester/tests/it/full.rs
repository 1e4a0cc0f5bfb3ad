//! A log on a volume that is full: a real, small file system, where mounting one is permitted.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use tonic::Code;
use vivace_core::TenantId;

use crate::running::{Place, Running, segment, spans, until};

/// A file system in memory, unmounted at the end.
struct Volume(PathBuf);

impl Volume {
    /// None where this process may not mount.
    fn mounted(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(at).expect("made");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(at.to_owned()))
    }

    /// Takes all the room there is.
    fn fill(&self) {
        let mut file = File::create(self.0.join("filler")).expect("made");
        for size in [64 << 10, 4096, 1] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
        assert!(fs::write(self.0.join("more"), b"x").is_err(), "it is full");
        let _ = fs::remove_file(self.0.join("more"));
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// About 100 KB that hardly compress; all that fits the volume is still one answer.
async fn push(ingester: &Running, id: u64) -> Result<(), tonic::Status> {
    let mut data = spans(&[(1, id)]);
    let mut state = id;
    let noise = (0..100_000).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b' ' + (state >> 33) as u8 % 95)
    });
    data.resource_spans[0].scope_spans[0].spans[0].name = noise.collect();
    ingester.push(segment(id, &data)).await.map(drop)
}

async fn push_until_full(ingester: &Running) -> u64 {
    for id in 1..1000 {
        if let Err(status) = push(ingester, id).await {
            assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
            return id - 1;
        }
    }
    panic!("the volume is not full");
}

async fn blocks(place: &Place) -> usize {
    place.bucket.blocks(&TenantId::single()).await.expect("listed").len()
}

/// Without the right to mount there is nothing to see.
macro_rules! volume {
    ($place:expr, $size:expr) => {
        match Volume::mounted(&$place.wal(), $size) {
            Some(volume) => volume,
            None => return,
        }
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_volume_refuses_pushes_and_recovers_with_the_next_flush() {
    let place = Place::new();
    let volume = volume!(place, "2m");
    let ingester = place.start().await;
    let taken = push_until_full(&ingester).await;
    assert!(taken > 10, "{taken}");
    volume.fill();
    assert_eq!(ingester.find(1).await, (1..=taken).collect::<Vec<_>>(), "reads go on");
    assert!(push(&ingester, 5000).await.is_err());
    ingester.get("/flush").await;
    until("the block is in the bucket", || async { blocks(&place).await == 1 }).await;
    // With the log's own space alone, which the flush has given back.
    until("pushes are taken again", || async { push(&ingester, 5000).await.is_ok() }).await;
    ingester.get("/flush").await;
    until("and flushed", || async { blocks(&place).await == 2 }).await;
    until("the log is empty", || async { place.log_bytes() < 100 }).await;
    assert_eq!(ingester.find(1).await, (1..=taken).chain([5000]).collect::<Vec<_>>());
    ingester.stop().await;
    drop(volume);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_full_volume_serves_and_flushes() {
    let place = Place::new();
    let volume = volume!(place, "2m");
    let mut ingester = place.start().await;
    let taken = push_until_full(&ingester).await;
    volume.fill();
    for _ in 0..2 {
        ingester.kill().await;
        ingester = place.start().await;
        assert_eq!(ingester.find(1).await, (1..=taken).collect::<Vec<_>>());
    }
    assert_eq!(push(&ingester, 5000).await.expect_err("there is no room").code(), Code::ResourceExhausted);
    ingester.get("/flush").await;
    until("the block is in the bucket", || async { blocks(&place).await == 1 }).await;
    until("pushes are taken again", || async { push(&ingester, 5000).await.is_ok() }).await;
    assert_eq!(ingester.find(1).await, (1..=taken).chain([5000]).collect::<Vec<_>>());
    ingester.kill().await;
    let ingester = place.start().await;
    assert_eq!(ingester.find(1).await, (1..=taken).chain([5000]).collect::<Vec<_>>(), "and what was taken is there after a kill");
    ingester.stop().await;
    drop(volume);
}
