//! See `shardgate_tests::fuzz::request_head`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shardgate_tests::fuzz::request_head(data));
