//! What operators ban, as lists of patterns with a verdict each. Who is banned by which of them is for the proxy to decide; here
//! are the lookups that HAProxy's maps have: exact, longest prefix, first substring.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, MatchKind};
use foldhash::fast::RandomState;

use crate::name::BanPattern;

/// The most patterns of all lists together.
pub const BANS_MAX: usize = 100_000;

/// What a pattern says of what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is refused.
    Ban,
    /// It is not, whatever a less exact pattern says.
    Allow,
}

impl Verdict {
    /// The word that stands for it in files and in Consul.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ban => "ban",
            Self::Allow => "allow",
        }
    }

    /// The verdict that `word` stands for.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Ban, Self::Allow].into_iter().find(|verdict| verdict.as_str() == word)
    }
}

/// A list of patterns. The first five are those below `banlists/{env}/` in Consul, the last two those below `bans/{env}/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BanList {
    /// Referers.
    Domain,
    /// Rooms, and groups with their slash.
    Exact,
    /// Beginnings of rooms and groups.
    Prefix,
    /// Parts of tokens, their first slash written `___`.
    Substr,
    /// Beginnings of groups that no other list bans.
    UnbanPrefix,
    /// Rooms, whatever their tenant.
    Room,
    /// Tenants, without a slash.
    Tenant,
}

impl BanList {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] =
        [Self::Domain, Self::Exact, Self::Prefix, Self::Substr, Self::UnbanPrefix, Self::Room, Self::Tenant];

    /// Its name in files and in Consul.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Domain => "domain",
            Self::Exact => "exact",
            Self::Prefix => "prefix",
            Self::Substr => "substr",
            Self::UnbanPrefix => "unban_prefix",
            Self::Room => "room",
            Self::Tenant => "tenant",
        }
    }
}

impl fmt::Display for BanList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How patterns are compared with a text that is in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Letters {
    /// A pattern's letters count in either case.
    EitherCase,
    /// As they are written, as HAProxy's maps do it: a pattern with an upper-case letter never matches.
    AsWritten,
}

/// What a pattern says, for both ways to compare it.
#[derive(Debug, Clone, Copy)]
struct Said {
    either_case: Verdict,
    as_written: Option<Verdict>,
}

impl Said {
    const fn by(self, letters: Letters) -> Option<Verdict> {
        match letters {
            Letters::EitherCase => Some(self.either_case),
            Letters::AsWritten => self.as_written,
        }
    }
}

/// The patterns of one list, arranged for lookups.
#[derive(Debug, Default)]
struct Index {
    /// In the order of the list, in lower case, each once.
    patterns: Vec<(String, Said)>,
    by_pattern: HashMap<String, usize, RandomState>,
    /// The lengths that patterns have, the longest first.
    lengths: Vec<usize>,
    /// Finds all of them in a text; `None` for a list that is empty.
    parts: Option<AhoCorasick>,
}

impl Index {
    fn new(list: &[(BanPattern, Verdict)]) -> Self {
        let mut index = Self::default();
        for (pattern, verdict) in list {
            let written = pattern.as_str();
            let lower = written.to_ascii_lowercase();
            let as_written = (lower == written).then_some(*verdict);
            let said = Said { either_case: *verdict, as_written };
            match index.by_pattern.get(&lower) {
                // Of patterns that differ in their case the one in lower case counts, else the first.
                Some(at) if as_written.is_some() => index.patterns[*at].1 = said,
                Some(_) => {}
                None => {
                    index.by_pattern.insert(lower.clone(), index.patterns.len());
                    index.patterns.push((lower, said));
                }
            }
        }
        let lengths: HashSet<usize, RandomState> =
            index.patterns.iter().map(|(pattern, _)| pattern.len()).collect();
        index.lengths = lengths.into_iter().collect();
        index.lengths.sort_unstable_by(|one, other| other.cmp(one));
        index
    }

    /// Arranged for [`Index::first_part`], too. Without an automaton, beyond what it can hold, nothing is found; [`BANS_MAX`] is far below.
    fn with_parts(list: &[(BanPattern, Verdict)]) -> Self {
        let mut index = Self::new(list);
        if !index.patterns.is_empty() {
            let patterns = index.patterns.iter().map(|(pattern, _)| pattern);
            index.parts = AhoCorasickBuilder::new().match_kind(MatchKind::Standard).build(patterns).ok();
        }
        index
    }

    fn exact(&self, text: &str, letters: Letters) -> Option<Verdict> {
        self.patterns[*self.by_pattern.get(text)?].1.by(letters)
    }

    fn longest_prefix(&self, text: &str, letters: Letters) -> Option<Verdict> {
        let beginnings = self.lengths.iter().filter_map(|len| text.get(..*len));
        beginnings.filter_map(|beginning| self.exact(beginning, letters)).next()
    }

    fn first_part(&self, text: &str, letters: Letters) -> Option<Verdict> {
        let found = self.parts.as_ref()?.find_overlapping_iter(text).map(|found| found.pattern().as_usize());
        let said = found.filter_map(|at| Some((at, self.patterns[at].1.by(letters)?)));
        said.min_by_key(|(at, _)| *at).map(|(_, verdict)| verdict)
    }
}

/// All lists. Texts that are looked up are in lower case.
#[derive(Debug, Clone, Default)]
pub struct Bans(Option<Arc<Lists>>);

#[derive(Debug)]
struct Lists {
    written: [Vec<(BanPattern, Verdict)>; 7],
    indices: [Index; 7],
}

impl Bans {
    pub(crate) fn new(entries: Vec<(BanList, BanPattern, Verdict)>) -> Self {
        if entries.is_empty() {
            return Self::default();
        }
        let mut written: [Vec<(BanPattern, Verdict)>; 7] = Default::default();
        for (list, pattern, verdict) in entries {
            written[list as usize].push((pattern, verdict));
        }
        let indices = BanList::ALL.map(|list| match list {
            BanList::Substr => Index::with_parts(&written[list as usize]),
            BanList::Domain
            | BanList::Exact
            | BanList::Prefix
            | BanList::UnbanPrefix
            | BanList::Room
            | BanList::Tenant => Index::new(&written[list as usize]),
        });
        Self(Some(Arc::new(Lists { written, indices })))
    }

    /// Whether nothing is banned at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The patterns of a list in its order.
    #[must_use]
    pub fn list(&self, list: BanList) -> &[(BanPattern, Verdict)] {
        self.0.as_ref().map_or(&[], |lists| &lists.written[list as usize])
    }

    fn index(&self, list: BanList) -> Option<&Index> {
        self.0.as_ref().map(|lists| &lists.indices[list as usize])
    }

    /// What the pattern that equals `text` says.
    #[must_use]
    pub fn exact(&self, list: BanList, text: &str, letters: Letters) -> Option<Verdict> {
        self.index(list)?.exact(text, letters)
    }

    /// What the longest pattern says that `text` begins with.
    #[must_use]
    pub fn longest_prefix(&self, list: BanList, text: &str, letters: Letters) -> Option<Verdict> {
        self.index(list)?.longest_prefix(text, letters)
    }

    /// What the first pattern of [`BanList::Substr`] says that stands anywhere in `text`.
    #[must_use]
    pub fn first_substring(&self, text: &str, letters: Letters) -> Option<Verdict> {
        self.index(BanList::Substr)?.first_part(text, letters)
    }
}

impl PartialEq for Bans {
    fn eq(&self, other: &Self) -> bool {
        BanList::ALL.into_iter().all(|list| self.list(list) == other.list(list))
    }
}

impl Eq for Bans {}

#[cfg(test)]
mod tests {
    use super::*;
    use Letters::{AsWritten, EitherCase};
    use Verdict::{Allow, Ban};

    fn bans(entries: &[(BanList, &str, Verdict)]) -> Bans {
        let pattern = |text: &str| BanPattern::parse(text).unwrap();
        Bans::new(entries.iter().map(|(list, text, verdict)| (*list, pattern(text), *verdict)).collect())
    }

    #[test]
    fn the_longest_prefix_counts_and_the_first_substring() {
        let bans = bans(&[
            (BanList::Prefix, "spam", Ban),
            (BanList::Prefix, "spamok", Allow),
            (BanList::Substr, "allow", Allow),
            (BanList::Substr, "all", Ban),
        ]);
        let prefix = |text| bans.longest_prefix(BanList::Prefix, text, AsWritten);
        assert_eq!(
            (prefix("spamo"), prefix("spamokay"), prefix("spa"), prefix("xspam")),
            (Some(Ban), Some(Allow), None, None)
        );
        let part = |text| bans.first_substring(text, AsWritten);
        assert_eq!((part("xallowx"), part("xallx"), part("al")), (Some(Allow), Some(Ban), None));
        assert_eq!(bans.exact(BanList::Exact, "spam", AsWritten), None, "lists do not mix");
    }

    #[test]
    fn upper_case_counts_only_in_either_case() {
        let bans = bans(&[
            (BanList::Exact, "Room", Ban),
            (BanList::Exact, "Both", Ban),
            (BanList::Exact, "both", Allow),
            (BanList::Substr, "PoRn", Ban),
        ]);
        let exact = |text| {
            (bans.exact(BanList::Exact, text, EitherCase), bans.exact(BanList::Exact, text, AsWritten))
        };
        assert_eq!(exact("room"), (Some(Ban), None));
        assert_eq!(exact("both"), (Some(Allow), Some(Allow)));
        assert_eq!(bans.first_substring("freeporn", EitherCase), Some(Ban));
        assert_eq!(bans.first_substring("freeporn", AsWritten), None);
    }

    #[test]
    fn equal_lists_are_equal_bans() {
        let one = bans(&[(BanList::Room, "r", Ban)]);
        assert_eq!(one, bans(&[(BanList::Room, "r", Ban)]));
        assert_ne!(one, bans(&[(BanList::Tenant, "r", Ban)]));
        assert_ne!(one, Bans::default());
        assert!(Bans::default().is_empty() && Bans::default().list(BanList::Room).is_empty());
    }
}
