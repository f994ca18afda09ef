//! Planted faults of the core, to test the checks. There are some only with the feature `test-hooks`.

use shardgate_peering_core::Node;

/// A fault that can be planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mutant(());

impl Mutant {
    /// All, with their names.
    #[must_use]
    pub fn all() -> Vec<(&'static str, Self)> {
        Vec::new()
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, mutant)| mutant)
    }

    /// Plants it.
    pub fn plant(self, node: &mut Node) {
        let _unused = node;
    }
}
