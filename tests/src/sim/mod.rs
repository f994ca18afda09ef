//! The simulation: many nodes of the core in virtual time, everything drawn from one seed, judged by a model that knows nothing of it.
//!
//! A seed draws a [`setup::Setup`]; [`run::run_seed`] runs it in two phases. First clients and faults; then a random core of the nodes is
//! healed, the rest stays broken for ever, and the core must converge within a bound that does not depend on the lease. The checks stand in
//! `check/`, the model in `model.rs`; they see inputs, outputs and public queries only. See `ops/doc/simulation.md`.

mod check;
mod clients;
pub mod coverage;
mod fact;
pub mod fault;
mod mishap;
pub mod model;
pub mod mutant;
pub mod observer;
pub mod options;
pub mod replay;
pub mod report;
pub mod run;
pub mod setup;
pub mod sweep;
pub mod trace;
