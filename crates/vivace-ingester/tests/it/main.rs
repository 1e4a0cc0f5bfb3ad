//! The ingester through its doors: gRPC, HTTP, its folder and the bucket.

mod durability;
mod flush;
mod full;
mod limits;
mod many_tenants;
mod push;
mod running;
mod search;
mod succession;
