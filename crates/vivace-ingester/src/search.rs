//! Search over what an ingester has: placeholder until the query crates are merged.
