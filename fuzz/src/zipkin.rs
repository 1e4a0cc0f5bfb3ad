//! What Zipkin's clients send: JSON of two versions, protobuf, thrift.

/// Has the distributor make OTLP of the input, as each format.
pub fn run(input: &[u8]) {
    vivace_distributor::fuzzing::zipkin(input);
}
