//! The bucket: where objects lie, the stores behind them, tenant indexes, and the list of blocks that follows them.
//!
//! The crate opens no column and knows no query. It has no clock of its own: times are handed in, or come from the store.
//! Start with [`Bucket`], then [`Poller`] and the [`Blocklist`] it keeps.

mod blocklist;
mod bucket;
mod cache;
mod error;
mod keys;
mod near;
mod open;
mod poller;
mod reader;
mod s3;
mod tenant_index;

pub use blocklist::{Blocklist, Change, Snapshot, TenantBlocks, overlaps};
pub use bucket::{Bucket, ListedBlock, Listing, report_bad_object};
pub use error::{BucketError, OpenError};
pub use near::{near, near_range};
pub use open::Environment;
pub use poller::{PollError, PollOptions, PollReport, Poller};
pub use tenant_index::{CompactedBlock, TenantIndex};
