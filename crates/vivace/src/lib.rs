//! Every service in one process: same code, same gRPC paths over loopback
