use std::fs;
use std::process::Command;

use tonic::Request;
use vivace_proto::tempopb::{PartialStatus, SearchRequest, SearchTagValuesRequest, TraceByIdRequest};
use vivace_proto::vivace::v1::SearchPartsRequest;
use vivace_server::warning;

use crate::running::{Place, segment, spans, until};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_a_kill() {
    let place = Place::new();
    for generation in 0..3u64 {
        let ingester = place.start().await;
        assert_eq!(ingester.find(1).await, (1..=generation * 5).collect::<Vec<_>>());
        for i in 1..=5 {
            let id = generation * 5 + i;
            ingester.push(segment(id, &spans(&[(1, id)]))).await.expect("taken");
        }
        ingester.kill().await;
    }
    let ingester = place.start().await;
    assert_eq!(ingester.find(1).await, (1..=15).collect::<Vec<_>>());
    ingester.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_end_keeps_everything_in_the_log() {
    let place = Place::new();
    let ingester = place.start().await;
    ingester.push(segment(1, &spans(&[(1, 1)]))).await.expect("taken");
    ingester.stop().await;
    assert_eq!(place.bucket.tenants().await.expect("listed"), []);
    let ingester = place.start().await;
    assert_eq!(ingester.find(1).await, [1]);
    ingester.stop().await;
}

/// What Tempo leaves in its folder is in nobody's way, and is kept.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_program_left_beside_the_log_stays() {
    let place = Place::new();
    let wal = place.log_folder().parent().expect("it is in one").to_owned();
    let left = ["blocks/single-tenant/0a1b/meta.json", "0a1b+single-tenant+vParquet4/0000000001"].map(|name| wal.join(name));
    for file in &left {
        fs::create_dir_all(file.parent().expect("it is in one")).expect("writable");
        fs::write(file, "{}").expect("writable");
    }
    let ingester = place.start().await;
    ingester.push(segment(1, &spans(&[(1, 1)]))).await.expect("taken");
    assert_eq!(ingester.find(1).await, [1]);
    ingester.stop().await;
    assert!(left.iter().all(|file| file.exists()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_write_is_left_out_and_nothing_else() {
    let place = Place::new();
    let ingester = place.start().await;
    for id in 1..=3 {
        ingester.push(segment(id, &spans(&[(1, id)]))).await.expect("taken");
    }
    ingester.kill().await;
    let file = place.log_files().remove(0);
    let whole = fs::read(&file).expect("readable");
    fs::write(&file, &whole[..whole.len() - 7]).expect("writable");
    let ingester = place.start().await;
    assert_eq!(ingester.find(1).await, [1, 2]);
    // The client was not told that the third is kept, so it sends it again.
    ingester.push(segment(3, &spans(&[(1, 3)]))).await.expect("taken");
    ingester.kill().await;
    let ingester = place.start().await;
    assert_eq!(ingester.find(1).await, [1, 2, 3]);
    ingester.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_the_middle_costs_one_segment_and_no_file() {
    let place = Place::new();
    let ingester = place.start().await;
    for id in 1..=3 {
        ingester.push(segment(id, &spans(&[(1, id)]))).await.expect("taken");
    }
    ingester.kill().await;
    let file = place.log_files().remove(0);
    let mut bytes = fs::read(&file).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&file, &bytes).expect("writable");
    let ingester = place.start().await;
    assert_eq!(ingester.find(1).await, [1, 3]);
    assert_eq!(fs::read(&file).expect("still there"), bytes);
    ingester.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_ledger_loses_no_span() {
    let place = Place::new();
    let ingester = place.start().await;
    ingester.push(segment(1, &spans(&[(1, 1)]))).await.expect("taken");
    ingester.stop().await;
    fs::remove_file(place.wal().join("ledger.journal")).expect("removed");
    let ingester = place.start().await;
    assert_eq!(ingester.find(1).await, [1]);
    ingester.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_comes_back_under_another_name_keeps_its_own() {
    let mut place = Place::new();
    let ingester = place.start().await;
    ingester.push(segment(1, &spans(&[(1, 1)]))).await.expect("taken");
    ingester.kill().await;
    place.config.ingester.lifecycler.id = "another".to_owned();
    let ingester = place.start().await;
    assert_eq!(ingester.find(1).await, [1]);
    ingester.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_head_costs_nothing_and_a_damaged_file_is_set_aside_once_it_is_flushed() {
    let place = Place::new();
    let ingester = place.start().await;
    for id in 1..=3 {
        ingester.push(segment(id, &spans(&[(1, id)]))).await.expect("taken");
    }
    ingester.kill().await;
    let file = place.log_files().remove(0);
    let mut bytes = fs::read(&file).expect("readable");
    bytes[..10].fill(0xff);
    fs::write(&file, &bytes).expect("writable");
    let ingester = place.start().await;
    assert_eq!(ingester.find(1).await, [1, 2, 3]);
    ingester.kill().await;
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&file, &bytes).expect("writable");
    let ingester = place.start().await;
    assert_eq!(ingester.find(1).await, [1, 2]);
    ingester.get("/flush").await;
    let aside = std::path::PathBuf::from(format!("{}.corrupt", file.display()));
    until("it is set aside", || async { aside.exists() }).await;
    assert_eq!(fs::read(&aside).expect("kept"), bytes);
    assert!(!file.exists());
    ingester.kill().await;
    let ingester = place.start().await;
    assert_eq!(ingester.find(1).await, [1, 2], "from the block");
    ingester.stop().await;
}

/// A file becomes a folder with something in it, a folder becomes a file, a file becomes garbage that is no text, or a pipe that
/// nobody writes to.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_lies_in_the_place_of_what_can_be_made_anew_does_not_keep_it_from_starting() {
    for name in ["ledger.journal", "instance-ids", "lock", "log"] {
        for garbage in ["bytes", "folder", "pipe"] {
            let place = Place::new();
            let ingester = place.start().await;
            ingester.push(segment(1, &spans(&[(1, 1)]))).await.expect("taken");
            ingester.get("/flush").await;
            until("it is flushed", || async { place.log_bytes() < 100 }).await;
            ingester.push(segment(2, &spans(&[(1, 2)]))).await.expect("taken");
            ingester.kill().await;
            let path = place.wal().join(name);
            if path.is_dir() {
                fs::rename(&path, place.wal().join("away")).expect("renamed");
            } else {
                fs::remove_file(&path).expect("removed");
            }
            match garbage {
                "bytes" => fs::write(&path, [0xff, 0xfe, 0, 200, b'\n', 7]).expect("written"),
                "folder" => fs::create_dir_all(path.join("something")).expect("made"),
                _ => assert!(Command::new("mkfifo").arg(&path).status().expect("it runs").success()),
            }
            let ingester = place.start().await;
            let want: &[u64] = match name {
                // What only the log knew is gone with it; what the ledger knew is in the bucket.
                "log" => &[1],
                "ledger.journal" => &[2],
                _ => &[1, 2],
            };
            assert_eq!(ingester.find(1).await, want, "{name} {garbage}");
            ingester.push(segment(3, &spans(&[(2, 3)]))).await.expect("taken");
            ingester.kill().await;
            let ingester = place.start().await;
            assert_eq!(ingester.find(2).await, [3], "{name} {garbage}");
            ingester.stop().await;
        }
    }
}

/// Silence would be taken for the whole answer.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_missing_with_a_word() {
    let place = Place::new();
    let ingester = place.start().await;
    ingester.push(segment(1, &spans(&[(1, 1)]))).await.expect("taken");
    // Under the feet of the process: what it knows of the segment is in memory.
    let file = place.log_files().pop().expect("there is one");
    let mut bytes = fs::read(&file).expect("readable");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("something is in it");
    bytes[end - 40..=end].fill(0x55);
    let opened = fs::OpenOptions::new().write(true).open(&file).expect("opens");
    std::os::unix::fs::FileExt::write_all_at(&opened, &bytes, 0).expect("written");
    ingester.push(segment(2, &spans(&[(1, 2)]))).await.expect("taken");

    let want = "recent spans are missing: 1 segment could not be read";
    let request = || SearchRequest { query: "{ }".to_owned(), limit: 10, ..SearchRequest::default() };
    let found = ingester.recent().search(Request::new(request())).await.expect("an answer");
    assert_eq!(warning::of(found.metadata()).as_deref(), Some(want));
    let parts = SearchPartsRequest { request: Some(request()), ..SearchPartsRequest::default() };
    let parts = ingester.recent().search_parts(Request::new(parts)).await.expect("an answer");
    assert_eq!(warning::of(parts.metadata()).as_deref(), Some(want));
    let values = SearchTagValuesRequest { tag_name: "span.item".to_owned(), ..SearchTagValuesRequest::default() };
    let values = ingester.querier().search_tag_values_v2(Request::new(values)).await.expect("an answer");
    assert_eq!(warning::of(values.metadata()).as_deref(), Some(want));
    assert_eq!(values.into_inner().tag_values.len(), 1, "what can be read is there");
    let trace = TraceByIdRequest { trace_id: vec![1; 16].into(), ..TraceByIdRequest::default() };
    let trace = ingester.querier().find_trace_by_id(Request::new(trace)).await.expect("an answer").into_inner();
    assert_eq!((trace.status(), trace.message.as_str()), (PartialStatus::Partial, want));
    ingester.stop().await;
}
