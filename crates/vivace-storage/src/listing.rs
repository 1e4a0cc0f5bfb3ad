//! What a listing of a tenant's folder shows, without reading an object.

use std::collections::BTreeMap;

use vivace_core::BlockId;

use crate::keys::{self, Key};

/// One block as a listing shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedBlock {
    /// Its folder.
    pub id: BlockId,
    /// When `meta.compacted.json` was written, nanoseconds since the epoch; none: the block is live.
    pub compacted_unix_nanos: Option<u64>,
}

/// What lies below a tenant's folder.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Blocks that have a meta, by id.
    pub blocks: Vec<ListedBlock>,
    /// Objects in folders without a meta: blocks being written or left behind by a crash.
    pub unfinished_blocks: usize,
    /// Objects that belong to no block. At most one is named.
    pub foreign_objects: usize,
    /// The first of them.
    pub foreign_example: Option<String>,
    /// Folders and objects that could not be looked at, with what was said; a block may be among them.
    pub unreadable: Vec<(String, String)>,
    /// When the newest object was written, nanoseconds since the epoch.
    pub newest_unix_nanos: u64,
    /// The tenant's index is there as protobuf.
    pub has_protobuf_index: bool,
    /// The tenant's index is there as JSON.
    pub has_json_index: bool,
}

/// Makes a [`Listing`] of what a store names.
#[derive(Default)]
pub(crate) struct Collector {
    found: BTreeMap<BlockId, Found>,
    listing: Listing,
}

#[derive(Default)]
struct Found {
    live: bool,
    compacted_unix_nanos: Option<u64>,
}

impl Collector {
    /// Takes in an object by its name below the tenant's folder.
    pub(crate) fn object(&mut self, name: &str, written_unix_nanos: u64) {
        self.listing.newest_unix_nanos = self.listing.newest_unix_nanos.max(written_unix_nanos);
        match keys::parse(name) {
            Key::Meta(id) => self.found.entry(id).or_default().live = true,
            Key::Compacted(id) => self.found.entry(id).or_default().compacted_unix_nanos = Some(written_unix_nanos),
            Key::Part(id) => drop(self.found.entry(id).or_default()),
            Key::ProtobufIndex => self.listing.has_protobuf_index = true,
            Key::JsonIndex => self.listing.has_json_index = true,
            Key::Foreign => self.foreign(name, written_unix_nanos),
        }
    }

    /// Takes in something that belongs to no block.
    pub(crate) fn foreign(&mut self, name: &str, written_unix_nanos: u64) {
        self.listing.newest_unix_nanos = self.listing.newest_unix_nanos.max(written_unix_nanos);
        self.listing.foreign_objects += 1;
        self.listing.foreign_example.get_or_insert_with(|| name.to_owned());
    }

    /// Takes in something that is there and cannot be looked at.
    pub(crate) fn unreadable(&mut self, name: String, why: String) {
        self.listing.unreadable.push((name, why));
    }

    /// A block with both metas, as a crash while marking leaves it, counts as compacted.
    pub(crate) fn finish(self) -> Listing {
        let mut listing = self.listing;
        for (id, Found { live, compacted_unix_nanos }) in self.found {
            if live || compacted_unix_nanos.is_some() {
                listing.blocks.push(ListedBlock { id, compacted_unix_nanos });
            } else {
                listing.unfinished_blocks += 1;
            }
        }
        listing
    }
}
