//! Datagrams of gossip: any bytes, any content under a right checksum, and answers to what was asked, over time.

/// Has a member hear what the input says.
pub fn run(input: &[u8]) {
    vivace_ring::fuzzing::gossip(input);
}
