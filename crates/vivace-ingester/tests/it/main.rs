//! The ingester through its doors: gRPC, HTTP, its folder and the bucket.

mod durability;
mod flush;
mod limits;
mod push;
mod running;
mod search;
mod takeover;
