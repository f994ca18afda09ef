//! Bytes as a source of choices: whatever they are, they mean something, and at their end everything is 0.

/// What is left of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bytes<'a> {
    rest: &'a [u8],
}

impl<'a> Bytes<'a> {
    pub(super) const fn new(data: &'a [u8]) -> Self {
        Self { rest: data }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        *first
    }

    /// One of `0..choices`.
    pub(super) fn below(&mut self, choices: u8) -> u8 {
        self.byte() % choices.max(1)
    }

    pub(super) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub(super) fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        let index = usize::from(self.byte()).checked_rem(of.len())?;
        of.get(index).cloned()
    }

    /// A number: mostly a small one, else one of those at the edges of what can go wrong, else any.
    pub(super) fn number(&mut self, edges: &[u64]) -> u64 {
        match self.byte() {
            small @ 0..=127 => u64::from(small),
            edge @ 128..=223 => {
                let index = usize::from(edge - 128) / 3;
                let distance = u64::from(edge - 128) % 3;
                let edge = edges.get(index % edges.len().max(1)).copied().unwrap_or(0);
                edge.wrapping_add(distance).wrapping_sub(1)
            }
            224..=255 => {
                let mut eight = [0; 8];
                eight.fill_with(|| self.byte());
                u64::from_le_bytes(eight)
            }
        }
    }

    /// Some bytes, their number said by the first two.
    pub(super) fn some(&mut self) -> &'a [u8] {
        let wanted = usize::from(u16::from_le_bytes([self.byte(), self.byte()]));
        let (taken, rest) = self.rest.split_at(wanted.min(self.rest.len()));
        self.rest = rest;
        taken
    }
}
