//! See `shardgate_tests::fuzz::agent`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shardgate_tests::fuzz::agent(data));
