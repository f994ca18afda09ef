//! See `shardgate_tests::fuzz::node`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shardgate_tests::fuzz::node(data));
