//! The table, in pages: a million entries are never held as a whole, and the driver answers others in between.

use std::pin::Pin;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use shardgate_peering::core::{Entry, Rank, Reason, ShardName, StickKey};
use shardgate_peering::{Replacement, TableHandle, TableRow};
use shardgate_proto::admin as wire;
use tokio::sync::mpsc;
use tonic::Status;
use tonic::codegen::tokio_stream::{Stream, wrappers::ReceiverStream};

use super::super::AdminParts;
use crate::cookie;
use crate::sessions::{Counted, OfKey, Sessions, There};

/// Rows asked of the driver at once.
const PAGE: usize = 512;

pub(super) type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The rows of a page and the key of the last one; `None` at the end of the table. One that is cut short is not to look whole.
fn turned(page: Option<Vec<TableRow>>) -> Result<Option<(StickKey, Vec<TableRow>)>, Status> {
    let cut = "this node stops, the rest of its table is missing";
    let page = page.ok_or_else(|| Status::unavailable(cut))?;
    Ok(page.last().map(|last| last.key.clone()).map(|last| (last, page)))
}

/// Where a listing is taken from.
pub(super) struct Source {
    pub(super) table: TableHandle,
    /// `None`: they are not asked for.
    pub(super) sessions: Option<Sessions>,
}

impl Source {
    async fn entries(&self, page: Vec<TableRow>) -> Vec<wire::TableEntry> {
        let Some(sessions) = &self.sessions else { return page.into_iter().map(entry).collect() };
        let keys: Arc<[StickKey]> = page.iter().map(|row| row.key.clone()).collect();
        let found = sessions.of_keys(keys).await;
        let with =
            |(row, found): (TableRow, OfKey)| wire::TableEntry { sessions: on_shards(&found), ..entry(row) };
        page.into_iter().zip(found).map(with).collect()
    }
}

/// The entry of one key.
pub(super) async fn of_key(source: Source, key: StickKey) -> Streamed<wire::TableEntry> {
    let (rows, stream) = mpsc::channel(1);
    let row = source.table.row(key).await;
    for entry in source.entries(row.into_iter().collect()).await {
        // The channel has room for the one, and its receiver is below.
        drop(rows.send(Ok(entry)).await);
    }
    Box::pin(ReceiverStream::new(stream))
}

/// All entries.
pub(super) fn table(source: Source) -> Streamed<wire::TableEntry> {
    let (rows, stream) = mpsc::channel(PAGE);
    tokio::spawn(async move {
        let mut after = None;
        loop {
            let page = match turned(source.table.page(after, PAGE).await) {
                Ok(Some((last, page))) => {
                    after = Some(last);
                    page
                }
                Ok(None) => return,
                Err(stopped) => return drop(rows.send(Err(stopped)).await),
            };
            for entry in source.entries(page).await {
                // Whoever asked has gone.
                if rows.send(Ok(entry)).await.is_err() {
                    return;
                }
            }
        }
    });
    Box::pin(ReceiverStream::new(stream))
}

/// Which conferences are asked for; all that is said has to fit.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) shard: Option<String>,
    pub(super) release: Option<String>,
    pub(super) tenant: Option<String>,
    pub(super) sessions: Having,
}

/// Whether conferences without sessions of this node are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Having {
    #[default]
    Any,
    Some,
}

impl Wanted {
    fn takes(&self, key: &str, shard: &str, release: &str) -> bool {
        let fits = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
        fits(&self.shard, shard)
            && fits(&self.release, release)
            && self.tenant.as_ref().is_none_or(|tenant| tenant_of(key) == Some(tenant.as_str()))
    }
}

/// The tenant of a conference: what stands before the first slash of its key.
fn tenant_of(key: &str) -> Option<&str> {
    key.split_once('/').map(|(tenant, _)| tenant)
}

/// The conferences that are wanted, behind the key `after`, with this node's sessions of each.
pub(super) fn conferences(
    parts: AdminParts,
    wanted: Wanted,
    mut after: Option<StickKey>,
) -> Streamed<wire::Conference> {
    let (rows, stream) = mpsc::channel(PAGE);
    tokio::spawn(async move {
        loop {
            let page = match turned(parts.table.page(after, PAGE).await) {
                Ok(Some((last, page))) => {
                    after = Some(last);
                    page
                }
                Ok(None) => return,
                Err(stopped) => return drop(rows.send(Err(stopped)).await),
            };
            for conference in joined(&parts, &wanted, page).await {
                // Whoever asked has gone.
                if rows.send(Ok(conference)).await.is_err() {
                    return;
                }
            }
        }
    });
    Box::pin(ReceiverStream::new(stream))
}

/// The conferences of a page: live entries that are no cookies'.
async fn joined(parts: &AdminParts, wanted: &Wanted, page: Vec<TableRow>) -> Vec<wire::Conference> {
    let snapshot = parts.discovery.current();
    let found = page.into_iter().filter_map(|row| {
        let shard = row.entry.shard?;
        let release = snapshot.shard(shard.as_str()).map(|shard| shard.release.as_str()).unwrap_or_default();
        let fits = !cookie::is_cookie(&row.key) && wanted.takes(row.key.as_str(), shard.as_str(), release);
        fits.then(|| (row.key, shard.to_string(), release.to_owned(), row.remaining_ms))
    });
    let found: Vec<_> = found.collect();
    if found.is_empty() {
        return Vec::new();
    }
    let keys: Arc<[StickKey]> = found.iter().map(|(key, ..)| key.clone()).collect();
    let sessions = parts.sessions.of_keys(keys).await;
    let counts = |found: &OfKey| wanted.sessions == Having::Any || !found.is_empty();
    let joined = found.into_iter().zip(sessions).filter(|(_, sessions)| counts(sessions));
    let joined = joined.map(|((key, shard, release, remaining_ms), sessions)| wire::Conference {
        key: key.to_string(),
        shard,
        release,
        remaining_ms,
        tunnels_here: sessions.values().map(|there| there.counted.tunnels).sum(),
        bosh_here: sessions.values().map(|there| there.counted.bosh).sum(),
        sessions: on_shards(&sessions),
    });
    joined.collect()
}

fn on_shards(sessions: &OfKey) -> Vec<wire::OnShard> {
    let row = |(shard, there): (&ShardName, &There)| {
        let There { counted: Counted { tunnels, bosh }, longest } = *there;
        let longest_ms = Some(longest.as_millis() as u64);
        wire::OnShard { shard: shard.to_string(), tunnels, bosh_sessions: bosh, longest_ms }
    };
    sessions.iter().map(row).collect()
}

pub(super) fn entry(row: TableRow) -> wire::TableEntry {
    let TableRow { key, entry, remaining_ms } = row;
    wire::TableEntry { key: key.to_string(), remaining_ms, ..decision(entry) }
}

/// One entry that gave way to another.
pub(super) fn replacement(replacement: &Replacement) -> wire::Replacement {
    let Replacement { at, before, after, .. } = replacement;
    wire::Replacement {
        at_ms: at.duration_since(UNIX_EPOCH).map_or(0, |at| at.as_millis() as u64),
        before: Some(decision(before.clone())),
        after: Some(decision(after.clone())),
    }
}

/// A decision alone: whose it is, and how long it lasts, stand elsewhere or do not matter any more.
fn decision(entry: Entry) -> wire::TableEntry {
    wire::TableEntry {
        shard: entry.shard.map(|shard| shard.to_string()).unwrap_or_default(),
        generation: entry.generation,
        rank: match entry.rank {
            Rank::Home => "home",
            Rank::Alone => "alone",
        }
        .to_owned(),
        origin: entry.origin.to_string(),
        reason: match entry.reason {
            Reason::Claim => "claim",
            Reason::Down => "down",
            Reason::Operator => "operator",
            Reason::Arbitration => "arbitration",
            Reason::End => "end",
            Reason::Full => "full",
        }
        .to_owned(),
        created_ms: entry.created.wall_ms(),
        ..wire::TableEntry::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shardgate_peering::core::{PeerId, Stamp};

    #[test]
    fn a_table_that_is_cut_short_does_not_look_whole() {
        let row = |key: &str| TableRow {
            key: StickKey::parse(key).unwrap(),
            entry: Entry {
                shard: None,
                generation: 1,
                rank: Rank::Home,
                created: Stamp(0),
                origin: PeerId::parse("a").unwrap(),
                reason: Reason::End,
            },
            remaining_ms: 0,
        };
        let (last, page) = turned(Some(vec![row("one"), row("two")])).unwrap().unwrap();
        assert_eq!((last.as_str(), page.len()), ("two", 2));
        assert!(turned(Some(Vec::new())).unwrap().is_none());
        assert_eq!(turned(None).unwrap_err().code(), tonic::Code::Unavailable);
    }

    #[test]
    fn all_that_is_said_has_to_fit() {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        for (shard, release, tenant, taken) in [
            ("", "", "", true),
            ("s1", "", "", true),
            ("s2", "", "", false),
            ("", "release-1", "acme", true),
            ("", "release-2", "acme", false),
            ("s1", "release-1", "other", false),
            ("", "", "acm", false),
        ] {
            let wanted = Wanted {
                shard: given(shard),
                release: given(release),
                tenant: given(tenant),
                sessions: Having::Any,
            };
            assert_eq!(wanted.takes("acme/room", "s1", "release-1"), taken, "{wanted:?}");
        }
        let wanted = Wanted { tenant: given("acme"), ..Wanted::default() };
        assert!(!wanted.takes("acme", "s1", "release-1"), "a room of that name is no tenant's");
    }
}
