//! Messages of a topic whose headers become attributes.

/// Has the distributor put attributes into the input, a request in OTLP.
pub fn run(input: &[u8]) {
    vivace_distributor::fuzzing::message_headers(input);
}
