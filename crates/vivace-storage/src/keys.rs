//! Where things lie in the bucket.
//!
//! Source: docs/facts/blocks.md, "Bucket layout".

use object_store::path::Path;
use vivace_block::objects;
use vivace_core::{BlockId, TenantId};

/// First-level names that are no tenants: the original's usage report and its scheduler's state.
const NOT_TENANTS: [&str; 2] = ["tempo_cluster_seed.json", "work.json"];

/// The tenant index as compressed protobuf.
pub(crate) const INDEX_PROTOBUF: &str = "index.pb.zst";
/// The tenant index as compressed JSON.
pub(crate) const INDEX_JSON: &str = "index.json.gz";

/// What the name of an object says about it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Meta(BlockId),
    Compacted(BlockId),
    /// Another object of a block.
    Part(BlockId),
    ProtobufIndex,
    JsonIndex,
    Foreign,
}

pub(crate) fn tenant(tenant: &TenantId) -> Path {
    path(tenant.as_str())
}

pub(crate) fn block(tenant: &TenantId, block: BlockId) -> Path {
    path(&format!("{tenant}/{block}"))
}

pub(crate) fn object(tenant: &TenantId, block: BlockId, name: &str) -> Path {
    path(&format!("{tenant}/{block}/{name}"))
}

pub(crate) fn of_tenant(tenant: &TenantId, name: &str) -> Path {
    path(&format!("{tenant}/{name}"))
}

/// `Path::from` would percent-encode characters that tenants may have.
fn path(text: &str) -> Path {
    Path::parse(text).expect("tenant and block ids are valid path segments")
}

/// Whether a first-level name is meant to be a tenant.
pub(crate) fn is_tenant(name: &str) -> bool {
    !name.is_empty() && !NOT_TENANTS.contains(&name)
}

/// Sorts an object by its name below a tenant's folder.
pub(crate) fn parse(name: &str) -> Key {
    let mut parts = name.split('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(INDEX_PROTOBUF), None, None) => Key::ProtobufIndex,
        (Some(INDEX_JSON), None, None) => Key::JsonIndex,
        (Some(folder), Some(name), None) => match folder.parse::<BlockId>() {
            // The folder must be spelled the way we would: anything else could not be read back.
            Ok(block) if block.to_string() == folder => match name {
                objects::META => Key::Meta(block),
                objects::META_COMPACTED => Key::Compacted(block),
                _ => Key::Part(block),
            },
            _ => Key::Foreign,
        },
        _ => Key::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        let id: BlockId = "de945769-96b5-4aa7-85d1-1a56b38513e9".parse().expect("a UUID");
        let kind = parse;
        assert_eq!(kind("de945769-96b5-4aa7-85d1-1a56b38513e9/meta.json"), Key::Meta(id));
        assert_eq!(kind("de945769-96b5-4aa7-85d1-1a56b38513e9/meta.compacted.json"), Key::Compacted(id));
        assert_eq!(kind("de945769-96b5-4aa7-85d1-1a56b38513e9/bloom-0"), Key::Part(id));
        assert_eq!(kind("index.pb.zst"), Key::ProtobufIndex);
        assert_eq!(kind("index.json.gz"), Key::JsonIndex);
        assert_eq!(kind("DE945769-96b5-4aa7-85d1-1a56b38513e9/meta.json"), Key::Foreign);
        assert_eq!(kind("notes/meta.json"), Key::Foreign);
        assert_eq!(kind("readme.txt"), Key::Foreign);
        assert_eq!(tenant(&TenantId::new("a*b'(c)").expect("valid")).as_ref(), "a*b'(c)");
    }
}
