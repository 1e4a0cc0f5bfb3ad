//! The life of one block: live traces, log, vParquet4 columns, bloom filters, meta.json
