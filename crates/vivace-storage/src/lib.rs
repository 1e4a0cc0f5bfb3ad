//! The bucket: where objects lie, the stores behind them, tenant indexes, and the list of blocks that follows them.
//!
//! The crate opens no column and knows no query. It has no clock of its own: times are handed in, or come from the store.
//! Start with [`Bucket`], then [`Poller`] and the [`Blocklist`] it keeps.

mod bad_objects;
mod blocklist;
mod bounded;
mod bucket;
mod cache;
mod error;
mod indexes;
mod keys;
mod listing;
mod local;
mod metrics;
mod near;
mod open;
mod poller;
mod probe;
mod reader;
mod s3;
mod stream;
mod tenant_index;
mod times;
mod upload;

pub use bad_objects::report_bad_object;
pub use blocklist::{Blocklist, Change, TenantBlocks};
pub use bucket::Bucket;
pub use error::{BucketError, OpenError};
pub use listing::{ListedBlock, Listing};
pub use near::{near, near_range};
pub use open::Environment;
pub use poller::{PollError, PollOptions, PollReport, Poller};
pub use stream::{DataUpload, DataWriter};
pub use tenant_index::{CompactedBlock, TenantIndex};
pub use times::overlaps;

/// What is counted about the bucket and the list of its blocks.
pub const METRICS: &[vivace_core::metric::Metric] = crate::metrics::ALL;
