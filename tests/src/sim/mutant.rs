//! Planted faults of the core, to test the checks. There are some only with the feature `test-hooks`.

use shardgate_peering_core::Node;

/// A fault that can be planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mutant(
    #[cfg(feature = "test-hooks")] shardgate_peering_core::Mutation,
    #[cfg(not(feature = "test-hooks"))] (),
);

impl Mutant {
    /// All, each with its name and what is wrong with it.
    #[cfg(feature = "test-hooks")]
    #[must_use]
    pub fn all() -> Vec<(&'static str, &'static str, Self)> {
        let all = shardgate_peering_core::Mutation::ALL;
        all.into_iter().map(|(mutation, name, what)| (name, what, Self(mutation))).collect()
    }

    /// All, each with its name and what is wrong with it.
    #[cfg(not(feature = "test-hooks"))]
    #[must_use]
    pub const fn all() -> Vec<(&'static str, &'static str, Self)> {
        Vec::new()
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|(known, ..)| *known == name).map(|(.., mutant)| mutant)
    }

    /// Plants it.
    #[cfg(feature = "test-hooks")]
    pub fn plant(self, node: &mut Node) {
        node.mutate(self.0);
    }

    /// Plants it.
    #[cfg(not(feature = "test-hooks"))]
    pub const fn plant(self, node: &mut Node) {
        let _unused = node;
    }
}
