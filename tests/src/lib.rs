//! What the benches and simulations share. The tests of the whole stand in `tests/tests` and `tests/e2e`.

pub mod attack;
pub mod bench;
pub mod certificates;
pub mod conformance_h1;
pub mod fuzz;
pub mod oracle;
pub mod plain_shard;
pub mod scenario;
pub mod sim;
pub mod world;
