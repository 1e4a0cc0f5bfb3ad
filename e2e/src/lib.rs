//! Tests that see only binaries, HTTP and gRPC.
