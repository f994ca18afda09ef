//! See `shardgate_tests::fuzz::discovery_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shardgate_tests::fuzz::discovery_file(data));
