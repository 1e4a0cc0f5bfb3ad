//! What Jaeger's clients send: thrift in packets and bodies, protobuf, and single spans in messages, also in JSON.

/// Has the distributor make OTLP of the input, as each format.
pub fn run(input: &[u8]) {
    vivace_distributor::fuzzing::jaeger(input);
}
