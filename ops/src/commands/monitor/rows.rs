//! The rows of all tables, key by key. Every listing comes in the order of its keys' hashes, and is merged while it comes: a million entries
//! of many nodes are never held as a whole.

use shardgate_peering_core::{StickKey, key_hash};
use shardgate_proto::admin::TableEntry;
use tonic::Streaming;

/// Where a key stands in every listing.
type Place = (u64, String);

/// What one table has of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) key: String,
    /// `None`: it has ended.
    pub(super) shard: Option<String>,
    /// `None`: a HAProxy's, which counts none.
    pub(super) generation: Option<u32>,
    /// When it was decided, in milliseconds since 1970; a HAProxy does not say.
    pub(super) created_ms: Option<u64>,
    pub(super) remaining_ms: u64,
    /// Sessions that this node has of it; a HAProxy does not say.
    pub(super) sessions: Vec<OnShard>,
    /// How long the one that has been open longest has been; for ever where a node of before does not say. A session over BOSH is a connection's,
    /// so behind a balancer that pools connections it is short.
    pub(super) longest_ms: u64,
    hash: u64,
}

/// Sessions of a conference on a shard.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(super) struct OnShard {
    pub(super) shard: String,
    pub(super) sessions: u64,
}

impl Row {
    /// A node's.
    pub(super) fn of_node(entry: TableEntry) -> Result<Self, String> {
        let TableEntry { key, shard, generation, created_ms, remaining_ms, sessions, .. } = entry;
        let hash = hash(&key)?;
        let longest_ms =
            sessions.iter().map(|on| on.longest_ms.unwrap_or(u64::MAX)).max().unwrap_or_default();
        let sessions = sessions
            .into_iter()
            .map(|on| OnShard { shard: on.shard, sessions: on.tunnels.saturating_add(on.bosh_sessions) });
        Ok(Self {
            key,
            shard: Some(shard).filter(|shard| !shard.is_empty()),
            generation: Some(generation),
            created_ms: Some(created_ms),
            remaining_ms,
            sessions: sessions.collect(),
            longest_ms,
            hash,
        })
    }

    /// A HAProxy's.
    pub(super) fn of_haproxy(key: String, shard: String, remaining_ms: u64) -> Result<Self, String> {
        let hash = hash(&key)?;
        Ok(Self {
            key,
            shard: Some(shard),
            generation: None,
            created_ms: None,
            remaining_ms,
            sessions: Vec::new(),
            longest_ms: 0,
            hash,
        })
    }

    fn place(&self) -> Place {
        (self.hash, self.key.clone())
    }

    fn stands_at(&self, (hash, key): &Place) -> bool {
        self.hash == *hash && self.key == *key
    }
}

fn hash(key: &str) -> Result<u64, String> {
    let key = StickKey::parse(key).map_err(|error| format!("the key {key:?} is not valid: {error}"))?;
    Ok(key_hash(&key))
}

/// One table, as it comes.
pub(super) enum Listing {
    /// A node's, from the wire.
    Node(Box<Streaming<TableEntry>>),
    /// One that was read whole.
    Read(std::vec::IntoIter<Row>),
}

impl Listing {
    /// One that comes in no order: it is sorted.
    pub(super) fn of(mut rows: Vec<Row>) -> Self {
        rows.sort_unstable_by(|one, other| (one.hash, &one.key).cmp(&(other.hash, &other.key)));
        rows.dedup_by(|later, first| later.key == first.key);
        Self::Read(rows.into_iter())
    }

    async fn next(&mut self) -> Result<Option<Row>, String> {
        match self {
            Self::Read(rows) => Ok(rows.next()),
            Self::Node(stream) => {
                let entry = stream.message().await.map_err(|status| status.message().to_owned())?;
                entry.map(Row::of_node).transpose()
            }
        }
    }
}

/// A listing that broke off, or comes in another order: by its number, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) listing: usize,
    pub(super) why: String,
}

/// All listings side by side.
pub(super) struct Merge {
    listings: Vec<Listing>,
    heads: Vec<Option<Row>>,
}

impl Merge {
    pub(super) async fn begin(listings: Vec<Listing>) -> Result<Self, Broken> {
        let mut merge = Self { heads: listings.iter().map(|_| None).collect(), listings };
        for listing in 0..merge.listings.len() {
            merge.advance(listing).await?;
        }
        Ok(merge)
    }

    /// The next key's rows, by the numbers of their listings; `None` where a listing does not have it.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Option<Row>>>, Broken> {
        let first = self
            .heads
            .iter()
            .flatten()
            .min_by(|one, other| (one.hash, &one.key).cmp(&(other.hash, &other.key)));
        let Some(place) = first.map(Row::place) else { return Ok(None) };
        let mut rows = Vec::with_capacity(self.heads.len());
        for listing in 0..self.heads.len() {
            let has_it = self.heads[listing].as_ref().is_some_and(|row| row.stands_at(&place));
            rows.push(if has_it { self.advance(listing).await? } else { None });
        }
        Ok(Some(rows))
    }

    /// Takes the head of a listing, and puts its next row there.
    async fn advance(&mut self, listing: usize) -> Result<Option<Row>, Broken> {
        let broken = |why| Broken { listing, why };
        let next = self.listings[listing].next().await.map_err(broken)?;
        let head = std::mem::replace(&mut self.heads[listing], next);
        if let (Some(before), Some(now)) = (&head, &self.heads[listing])
            && before.place() >= now.place()
        {
            let what = "its table does not come in the order of its keys' hashes: is it of another version?";
            return Err(broken(what.to_owned()));
        }
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &str, shard: &str) -> Row {
        Row::of_haproxy(key.to_owned(), shard.to_owned(), 1).unwrap()
    }

    #[tokio::test]
    async fn rows_of_one_key_come_together() {
        let one = ["a", "b", "c", "d"].map(|key| row(key, "s1"));
        let other = ["e", "c", "a"].map(|key| row(key, "s2"));
        let listings = vec![Listing::of(one.to_vec()), Listing::of(other.to_vec()), Listing::of(Vec::new())];
        let mut merge = Merge::begin(listings).await.unwrap();
        let mut found = std::collections::BTreeMap::new();
        while let Some(rows) = merge.next().await.unwrap() {
            let key = rows.iter().flatten().next().unwrap().key.clone();
            let shards: Vec<_> = rows.into_iter().map(|row| row.and_then(|row| row.shard)).collect();
            let shards: Vec<_> = shards.iter().map(|shard| shard.as_deref().unwrap_or("-")).collect();
            assert!(found.insert(key, shards.join(" ")).is_none());
        }
        let expected =
            [("a", "s1 s2 -"), ("b", "s1 - -"), ("c", "s1 s2 -"), ("d", "s1 - -"), ("e", "- s2 -")];
        assert_eq!(found, expected.map(|(key, shards)| (key.to_owned(), shards.to_owned())).into());
    }

    #[tokio::test]
    async fn another_order_is_noticed() {
        let mut rows: Vec<Row> = ["a", "b"].map(|key| row(key, "s1")).to_vec();
        rows.sort_unstable_by_key(|row| std::cmp::Reverse(row.hash));
        let broken = Merge::begin(vec![Listing::of(Vec::new()), Listing::Read(rows.into_iter())]).await;
        let mut merge = broken.unwrap();
        assert_eq!(merge.next().await.unwrap_err().listing, 1);
    }

    #[test]
    fn what_is_no_key_is_told() {
        let why = Row::of_haproxy(String::new(), "s1".to_owned(), 1).unwrap_err();
        assert!(why.starts_with("the key \"\" is not valid"), "{why}");
    }
}
