//! See `shardgate_tests::fuzz::routing_key`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shardgate_tests::fuzz::routing_key(data));
