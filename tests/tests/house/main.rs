//! The guards of the house: what the compiler does not see, but a reader of the repository relies on.
//!
//! Each test names every offence it found, not just the first, so that one run tells the whole story.

mod core_guard;
mod dependencies;
mod documents;
mod repository;
mod sources;
