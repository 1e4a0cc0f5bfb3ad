use prost::Message;
use vivace_block::{BlockOptions, BlockWriter, SpanRef};
use vivace_config::{Backend, TraceStorage};
use vivace_core::{BlockId, TenantId, TraceId};
use vivace_proto::otlp::Span;
use vivace_storage::Bucket;

use vivace_cli::Ending;

use crate::{answer, cli};

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
    let row = |column: &str| got.lines().find(|line| line.starts_with(column)).expect("the column").split_whitespace().collect::<Vec<_>>();
    // One name in a dictionary of one entry: its length and three letters.
    assert_eq!(row("rs.ss.Spans.Name ")[7..], ["yes", "1", "7", "B", "ZSTD(ZstdLevel(1))"], "{got}");
    assert_eq!(row("rs.ss.Spans.SpanID ")[7], "no", "{got}");
    let got = cli(&["block", "inspect", &block, "--schema"]).await.expect("a schema");
    assert!(got.starts_with("message Trace {\n  REQUIRED BYTE_ARRAY TraceID;"), "{got}");
}

/// A bucket with one block that Tempo wrote; the block's folder.
fn golden(folder: &std::path::Path, set: &str) -> String {
    let from = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../vivace-block/testdata").join(set);
    let meta = std::fs::read_to_string(from.join("meta.json")).expect("a meta");
    let id = meta.split("\"blockID\":\"").nth(1).expect("an id").split('"').next().expect("an id");
    let to = folder.join("blocks/single-tenant").join(id);
    std::fs::create_dir_all(&to).expect("a folder");
    for file in std::fs::read_dir(from).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        let name = file.file_name().expect("a name").to_owned();
        if ["meta.json", "data.parquet", "index"].iter().any(|known| name == **known) || name.to_string_lossy().starts_with("bloom-") {
            std::fs::copy(file, to.join(name)).expect("a copy");
        }
    }
    to.to_str().expect("a path").to_owned()
}

#[tokio::test]
async fn a_good_block_is_verified_and_a_damaged_one_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let ours = bucket(folder.path()).await;
    let (ending, got) = answer(&["block", "verify", &ours]).await.expect("a report");
    assert!(ending == Ending::Good && got.ends_with("\nNothing is wrong.\n"), "{got}");
    assert!(got.contains("\nCHECK          RESULT\nfile           ok      ") && got.contains(", 10 traces, 20 spans\n"), "{got}");

    let block = golden(folder.path(), "v4-three-blocks-1");
    let (ending, got) = answer(&["block", "verify", &block]).await.expect("a report");
    assert_eq!(ending, Ending::Good, "{got}");
    assert!(got.contains("\nblock times (note)\n  2 traces of the block's last second"), "{got}");

    let meta = format!("{block}/meta.json");
    let text = std::fs::read_to_string(&meta).expect("a meta");
    std::fs::write(&meta, text.replace("\"totalObjects\":46", "\"totalObjects\":47")).expect("written");
    let (ending, got) = answer(&["block", "verify", &block]).await.expect("a report");
    assert_eq!(ending, Ending::Bad, "{got}");
    assert!(got.contains("\ntrace ids (FAILED)\n  meta.json says 47 traces, there are 46\n"), "{got}");
    // The size is that of the object, whatever the meta says.
    std::fs::write(&meta, text.replace("\"size\":", "\"size\":1")).expect("written");
    let (ending, got) = answer(&["block", "verify", &block]).await.expect("a report");
    assert_eq!(ending, Ending::Bad, "{got}");
    assert!(got.contains("\n1 of 14 checks failed: file.\nAll spans can be read: "), "{got}");
    // As advised.
    let to = folder.path().join("repaired");
    let got = cli(&["block", "convert", &block, "--to", to.to_str().expect("a path")]).await.expect("a summary");
    let new = got.lines().find_map(|line| line.strip_prefix("Written to ")).expect("a place");
    let (ending, got) = answer(&["block", "verify", new]).await.expect("a report");
    assert_eq!(ending, Ending::Good, "{got}");

    std::fs::write(&meta, text).expect("written");
    let data = format!("{block}/data.parquet");
    let mut bytes = std::fs::read(&data).expect("columns");
    bytes[300] ^= 1;
    std::fs::write(&data, bytes).expect("written");
    let (ending, got) = answer(&["block", "verify", &block]).await.expect("a report");
    assert_eq!(ending, Ending::Bad, "{got}");
    assert!(got.contains("column TraceID: a page's checksum is wrong") && got.contains("restore the block"), "{got}");
    assert!(got.contains("\nnested sets    skipped  not all rows could be read\n"), "{got}");
}

#[tokio::test]
async fn attributes_are_weighed_and_the_advice_is_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    let block = golden(folder.path(), "v4-bulk-rowgroups");
    let got = cli(&["block", "analyse", &block]).await.expect("a summary");
    for part in
        ["\nResource attributes, the largest first: ", "\nSpan attributes, the largest first: ", "\nEvent attributes", "  of the format\n"]
    {
        assert!(got.contains(part), "{part:?} in {got}");
    }
    assert!(got.contains("more; --top "), "{got}");
    let yaml = &got[got.find("\nstorage:").expect("a recommendation")..];
    let config = vivace_config::Config::parse(yaml, "recommended.yaml").expect("it is configuration").0;
    let columns = &config.storage.trace.block.parquet_dedicated_columns;
    assert!(!columns.is_empty() && columns.len() <= 20, "{yaml}");
    let few = cli(&["block", "analyse", &block, "--top", "1"]).await.expect("a summary");
    assert!(few.lines().count() + 10 < got.lines().count(), "{few}");
}

#[tokio::test]
async fn traces_are_dumped_as_otlp() {
    let folder = tempfile::tempdir().expect("a folder");
    let block = golden(folder.path(), "v4-three-blocks-1");
    let got = cli(&["block", "dump", &block]).await.expect("traces");
    let lines: Vec<serde_json::Value> = got.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 46);
    let id =
        |json: &serde_json::Value| json["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["traceId"].as_str().expect("an id").to_owned();
    let ids: Vec<String> = lines.iter().map(id).collect();
    assert!(ids.is_sorted() && ids.iter().all(|id| id.len() == 32), "{ids:?}");
    let three = cli(&["block", "dump", &block, "--limit", "3"]).await.expect("traces");
    assert!(three.lines().eq(got.lines().take(3)));
    let one = cli(&["block", "dump", &block, "--trace", &ids[20]]).await.expect("a trace");
    assert_eq!(one.trim_end(), got.lines().nth(20).expect("a line"));
    let error = cli(&["block", "dump", &block, "--trace", "1234"]).await.expect_err("no such trace");
    assert!(error.starts_with("there is no trace 00000000000000000000000000001234 in block "), "{error}");
}

#[tokio::test]
async fn vparquet5_is_converted_and_nothing_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let old = golden(folder.path(), "v5-compacted");
    let to = folder.path().join("other");
    let got = cli(&["block", "convert", &old, "--to", to.to_str().expect("a path")]).await.expect("a summary");
    assert!(got.contains("\nbefore  ") && got.contains("  vParquet5  60 ") && got.contains("  vParquet4  60 "), "{got}");
    let new = got.lines().find_map(|line| line.strip_prefix("Written to ")).expect("a place");
    assert!(new.starts_with(to.to_str().expect("a path")) && new.contains("/single-tenant/"), "{new}");
    let (ending, report) = answer(&["block", "verify", new]).await.expect("a report");
    assert!(ending == Ending::Good && report.contains("vParquet4, 60 traces, "), "{report}");
    // Attributes come in another order: those with a column come last.
    let spans = |dump: String| {
        let mut spans = Vec::new();
        for line in dump.lines() {
            let json: serde_json::Value = serde_json::from_str(line).expect("JSON");
            for resource in json["resourceSpans"].as_array().expect("resources") {
                for scope in resource["scopeSpans"].as_array().expect("scopes") {
                    for span in scope["spans"].as_array().expect("spans") {
                        let mut span = span.clone();
                        for list in [resource["resource"]["attributes"].clone(), span["attributes"].take()] {
                            let mut texts: Vec<String> = list.as_array().into_iter().flatten().map(ToString::to_string).collect();
                            texts.sort();
                            spans.push(texts.join(" "));
                        }
                        spans.push(span.to_string());
                    }
                }
            }
        }
        spans
    };
    let (before, after) = (cli(&["block", "dump", &old]).await.expect("traces"), cli(&["block", "dump", new]).await.expect("traces"));
    assert_eq!(spans(before), spans(after));
}

#[tokio::test]
async fn vparquet3_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let block = golden(folder.path(), "v4-three-blocks-1");
    let meta = format!("{block}/meta.json");
    let text = std::fs::read_to_string(&meta).expect("a meta");
    std::fs::write(&meta, text.replace("vParquet4", "vParquet3")).expect("written");
    let to = folder.path().join("other");
    for command in [&["dump"][..], &["analyse"], &["convert", "--to", to.to_str().expect("a path")]] {
        let error = cli(&[&["block"], command, &[&block]].concat()).await.expect_err("is refused");
        assert!(error.contains("\"vParquet3\"") && error.contains("until its retention ends"), "{error}");
    }
    let (ending, got) = answer(&["block", "verify", &block]).await.expect("a report");
    assert!(ending == Ending::Bad && got.contains("until its retention ends"), "{got}");
    assert!(cli(&["block", "inspect", &block]).await.expect("a summary").contains("vParquet3"));
}

#[tokio::test]
async fn a_block_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let block = golden(folder.path(), "v4-three-blocks-1");
    std::fs::rename(format!("{block}/meta.json"), format!("{block}/meta.compacted.json")).expect("renamed");
    assert!(cli(&["block", "dump", &block, "--limit", "1"]).await.is_ok());
    std::fs::remove_file(format!("{block}/meta.compacted.json")).expect("removed");
    let error = cli(&["block", "dump", &block]).await.expect_err("is gone");
    assert!(error.contains("is not in the bucket: it has no meta.json"), "{error}");
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
