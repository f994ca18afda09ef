//! See `shardgate_tests::fuzz::relay`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shardgate_tests::fuzz::relay(data));
