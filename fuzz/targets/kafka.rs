//! See the crate.

#![no_main]

#[global_allocator]
static ALLOCATOR: vivace_fuzz::Allocator = vivace_fuzz::allocator();

libfuzzer_sys::fuzz_target!(|input: &[u8]| vivace_fuzz::kafka::run(input));
