//! The bucket, the blocks in it, and the caches in front of it.

use std::collections::HashSet;

use crate::reader::Reader;
use crate::{Backend, BlockVersion, CacheRole, Config, S3};

use super::limits::columns;

pub(super) fn blocks(config: &Config, reader: &mut Reader) {
    let block = &config.storage.trace.block;
    if block.version != BlockVersion::VParquet4 {
        reader.advise_at(
            "storage.trace.block.version",
            format!("blocks are written as vParquet4, which Tempo 2.x and 3.x read; got {}", block.version),
        );
    }
    let share = block.bloom_filter_false_positive;
    if share <= 0.0 || share >= 1.0 {
        reader.problem_at("storage.trace.block.bloom_filter_false_positive", format!("expected a share above 0 and below 1; got {share}"));
    }
    for (key, bytes) in [
        ("bloom_filter_shard_size_bytes", block.bloom_filter_shard_size_bytes),
        ("parquet_row_group_size_bytes", block.parquet_row_group_size_bytes),
    ] {
        if bytes == 0 {
            reader.problem_at(&format!("storage.trace.block.{key}"), "expected at least 1; got 0".to_owned());
        }
    }
    columns(&block.parquet_dedicated_columns, "storage.trace.block.parquet_dedicated_columns", reader);
}

pub(super) fn caches(config: &Config, reader: &mut Reader) {
    let mut claimed: HashSet<CacheRole> = HashSet::new();
    for (index, cache) in config.cache.caches.iter().enumerate() {
        let path = format!("cache.caches[{index}]");
        if cache.memcached.is_some() == cache.redis.is_some() {
            reader.problem_at(&path, "expected either memcached or redis".to_owned());
        }
        if cache.roles.is_empty() {
            reader.problem_at(&path, "expected at least one role in roles".to_owned());
        }
        for role in &cache.roles {
            if !claimed.insert(*role) {
                reader.problem_at(&format!("{path}.roles"), format!("role {role} is claimed by another cache already"));
            }
        }
    }
}

/// Whether the bucket is named at all.
pub(super) fn bucket(config: &Config, reader: &mut Reader) {
    let trace = &config.storage.trace;
    let (key, value, what) = match trace.backend {
        Backend::Unset => {
            if !reader.is_refused("storage.trace.backend") {
                reader.problem_at("storage.trace.backend", "is not set; expected local, s3, gcs or azure".to_owned());
            }
            return;
        }
        Backend::Local => ("local.path", &trace.local.path, "a folder for blocks"),
        Backend::S3 => ("s3.bucket", &trace.s3.bucket, "the name of a bucket"),
        Backend::Gcs => ("gcs.bucket_name", &trace.gcs.bucket_name, "the name of a bucket"),
        Backend::Azure => ("azure.container_name", &trace.azure.container_name, "the name of a container"),
    };
    if value.is_empty() {
        reader.problem_at(&format!("storage.trace.{key}"), format!("is not set; expected {what}, as the backend is {}", trace.backend));
    }
    match trace.backend {
        Backend::S3 => s3(&trace.s3, reader),
        Backend::Azure if trace.azure.storage_account_name.is_empty() => {
            let message = "is not set; expected the name of an account, as the backend is azure".to_owned();
            reader.problem_at("storage.trace.azure.storage_account_name", message);
        }
        _ => {}
    }
}

/// What a start would find wrong with the bucket's keys without asking it.
fn s3(s3: &S3, reader: &mut Reader) {
    let at = |key: &str| format!("storage.trace.s3.{key}");
    let endpoint = s3.endpoint.trim().trim_end_matches('/');
    let host = endpoint.split_once("://").map_or(endpoint, |(_, host)| host);
    if endpoint.contains("://") && !endpoint.starts_with("http://") && !endpoint.starts_with("https://") || host.contains('/') {
        reader.problem_at(&at("endpoint"), format!("expected host or host:port, the bucket has a key of its own; got {endpoint:?}"));
    }
    if s3.bucket_lookup_type > 2 {
        let message = format!("expected 0 (automatic), 1 (host name) or 2 (path); got {}", s3.bucket_lookup_type);
        reader.problem_at(&at("bucket_lookup_type"), message);
    }
    if !matches!(s3.sse.kind.as_str(), "" | "SSE-S3" | "SSE-KMS") {
        reader.problem_at(&at("sse.type"), format!("expected SSE-S3, SSE-KMS or nothing; got {:?}", s3.sse.kind));
    }
    if s3.tls_cert_path.is_empty() != s3.tls_key_path.is_empty() {
        reader.problem_at(&at("tls_cert_path"), "expected both tls_cert_path and tls_key_path, or neither".to_owned());
    }
    if s3.tls_min_version == "VersionTLS13" {
        let message = "cannot be VersionTLS13 yet: TLS 1.2 is accepted too, and it would not be safe to go on as if it were not";
        reader.problem_at(&at("tls_min_version"), message.to_owned());
    }
}
