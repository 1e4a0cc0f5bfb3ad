//! What Jaeger's clients send: thrift in packets and bodies, protobuf.

/// Has the distributor make OTLP of the input, as each format.
pub fn run(input: &[u8]) {
    vivace_distributor::fuzzing::jaeger(input);
}
