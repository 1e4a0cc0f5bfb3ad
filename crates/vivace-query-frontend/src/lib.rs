//! The query API: parse, split into jobs, queue fairly per tenant, retry, combine
