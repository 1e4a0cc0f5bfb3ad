//! The bucket: object keys, the store, tenant index, blocklist and its poller
