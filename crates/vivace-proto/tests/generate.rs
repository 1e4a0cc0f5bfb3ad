//! The generated code in `src/generated` is current. `UPDATE_GOLDEN=1` (`make proto`) writes it anew.

use std::path::{Path, PathBuf};

use prost_build::Config;

const FILES: [&str; 12] = [
    "jaeger/collector.proto",
    "jaeger/query_v3.proto",
    "opentelemetry/common.proto",
    "opentelemetry/trace.proto",
    "prometheus/remote.proto",
    "tempopb/tempo.proto",
    "vivace/v1/log.proto",
    "vivace/v1/handover.proto",
    "vivace/v1/jobs.proto",
    "vivace/v1/series.proto",
    "vivace/v1/recent.proto",
    "zipkin/zipkin.proto",
];

fn generate(out: &Path) {
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let descriptors = protox::compile(FILES, [&protos]).expect("the .proto files compile");
    let mut config = Config::new();
    config.bytes(["."]).btree_map(["."]).out_dir(out).skip_source_info();
    tonic_prost_build::configure()
        .out_dir(out)
        .codec_path("tonic_prost::ProstCodec")
        .compile_fds_with_config(descriptors.clone(), config)
        .expect("code is generated");
    let encoded = prost_build_descriptor_bytes(&descriptors);
    pbjson_build::Builder::new()
        .register_descriptors(&encoded)
        .expect("descriptors register")
        .out_dir(out)
        .ignore_unknown_fields()
        .btree_map(["."])
        .build(&[".opentelemetry", ".tempopb"])
        .expect("serde code is generated");
    for file in files(out).into_iter().filter(|file| file.to_string_lossy().ends_with(".serde.rs")) {
        let text = std::fs::read_to_string(&file).expect("readable");
        std::fs::write(&file, mended(&text)).expect("writable");
    }
}

/// The generator writes doubles that are no numbers as null and refuses numbers that an enum has no name for; the mapping has texts
/// for the former and numbers for the latter.
fn mended(code: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in code.lines() {
        let trimmed = line.trim_start();
        let indent = &line[..line.len() - trimmed.len()];
        let before = lines.last().map_or("", |line| line.trim_start()).to_owned();
        let mended = if trimmed == "struct_ser.serialize_field(\"doubleValue\", v)?;" {
            "struct_ser.serialize_field(\"doubleValue\", &crate::json::Double(*v))?;".to_owned()
        } else if before.starts_with("if self.") && before.ends_with(" != 0. {") && trimmed.starts_with("struct_ser.serialize_field(") {
            let (start, value) = trimmed.split_once(", &").expect("a double that is not zero is written");
            format!("{start}, &crate::json::Double({}))?;", value.trim_end_matches(")?;"))
        } else if let Some(field) = trimmed.strip_prefix(".map_err(|_| serde::ser::Error::custom(format!(\"Invalid variant {}\", ") {
            let number = field.trim_end_matches(")))?;");
            let value = before.trim_start_matches("let v = ").to_owned();
            lines.pop();
            lines.push(format!("{}let v = crate::json::EnumOut({value}.map_err(|_| {number}));", &indent[4..]));
            continue;
        } else if let Some((start, kind)) = trimmed.trim_end_matches(">()? as i32);").split_once("map_.next_value::<")
            && trimmed.ends_with(">()? as i32);")
        {
            format!("{start}map_.next_value::<crate::json::EnumIn<{kind}>>()?.number);")
        } else {
            trimmed.to_owned()
        };
        lines.push(format!("{indent}{mended}"));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn prost_build_descriptor_bytes<M: protox::prost::Message>(descriptors: &M) -> Vec<u8> {
    descriptors.encode_to_vec()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = std::fs::read_dir(dir).expect("the folder exists").map(|e| e.expect("an entry").path()).collect();
    names.sort();
    names
}

#[test]
fn generated_code_is_current() {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/generated");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        generate(&committed);
        return;
    }
    let fresh = tempfile::tempdir().expect("a temporary folder");
    generate(fresh.path());
    let names = |dir: &Path| files(dir).iter().map(|p| p.file_name().expect("a name").to_owned()).collect::<Vec<_>>();
    assert_eq!(names(fresh.path()), names(&committed), "files differ; run `make proto`");
    for file in files(fresh.path()) {
        let other = committed.join(file.file_name().expect("a name"));
        let same = std::fs::read(&file).expect("readable") == std::fs::read(&other).expect("readable");
        assert!(same, "{} is out of date; run `make proto`", other.display());
    }
}
