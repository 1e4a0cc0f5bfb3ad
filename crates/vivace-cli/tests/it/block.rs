use prost::Message;
use vivace_block::{BlockOptions, BlockWriter, SpanRef};
use vivace_config::{Backend, TraceStorage};
use vivace_core::{BlockId, TenantId, TraceId};
use vivace_proto::otlp::Span;
use vivace_storage::Bucket;

use crate::cli;

/// Puts a block of ten traces with two spans each into a bucket in a folder.
async fn bucket(folder: &std::path::Path) -> String {
    let tenant = TenantId::new("team-a").expect("a tenant");
    let id: BlockId = "11111111-2222-4333-8444-555555555555".parse().expect("an id");
    let data = folder.join("data.parquet");
    let file = std::fs::File::create(&data).expect("a file");
    let mut writer = BlockWriter::new(BlockOptions::default(), tenant, id, file, 10).expect("a writer");
    for trace in 1..=10u8 {
        let spans: Vec<Vec<u8>> = (1..=2u8)
            .map(|id| {
                let start_time_unix_nano = 1_700_000_000_000_000_000;
                let (trace_id, span_id) = (vec![trace; 16].into(), vec![id; 8].into());
                let end_time_unix_nano = start_time_unix_nano + 1_000_000;
                Span { trace_id, span_id, name: "pay".to_owned(), start_time_unix_nano, end_time_unix_nano, ..Span::default() }
                    .encode_to_vec()
            })
            .collect();
        let spans: Vec<SpanRef<'_>> = spans.iter().map(|span| SpanRef { resource: &[], scope: &[], span }).collect();
        writer.push_trace(TraceId::from_slice(&[trace; 16]), &spans).expect("a trace");
    }
    let block = writer.finish().expect("a block");
    let mut storage = TraceStorage { backend: Backend::Local, ..TraceStorage::default() };
    storage.local.path = folder.join("blocks").to_string_lossy().into_owned();
    let bucket = Bucket::open(&storage, &|_| None).await.expect("a bucket");
    bucket.put_block(&block.meta, &data, block.blooms, block.index).await.expect("it is stored");
    format!("{}/team-a/{}", storage.local.path, block.meta.block_id)
}

#[tokio::test]
async fn blocks_are_listed_and_looked_into() {
    let folder = tempfile::tempdir().expect("a folder");
    let block = bucket(folder.path()).await;
    let blocks = folder.path().join("blocks");
    let got = cli(&["block", "ls", blocks.to_str().expect("a path")]).await.expect("a list");
    assert!(got.starts_with("TENANT  BLOCK ") && got.contains("team-a  ") && got.contains("vParquet4  0      10 "), "{got}");
    assert!(got.contains("\n1 block, 10 traces, "), "{got}");

    let got = cli(&["block", "inspect", &block]).await.expect("a summary");
    assert!(got.contains("  traces      10, 20 spans\n"), "{got}");
    assert!(got.contains("\nRow groups\nGROUP  TRACES  STORED"), "{got}");
    assert!(got.contains("\nrs.ss.Spans.SpanID "), "{got}");
    assert!(got.contains("more with"), "{got}");
    let got = cli(&["block", "inspect", &block, "--all"]).await.expect("a summary");
    assert!(!got.contains("more with"), "{got}");
}

#[tokio::test]
async fn a_wrong_place_is_named() {
    let got = cli(&["block", "ls", "/nowhere"]).await.expect_err("no folder");
    assert_eq!(got, "/nowhere is no folder; expected the folder of a local bucket, or s3://bucket/prefix");
    let got = cli(&["block", "inspect", "somewhere"]).await.expect_err("no block");
    assert_eq!(got, "expected <bucket>/<tenant>/<block id>, got \"somewhere\"");
    let got = cli(&["block", "ls"]).await.expect_err("no bucket");
    assert!(got.starts_with("no bucket is named"), "{got}");
}
