//! Where a request to a pool goes: its cookie's server while that can be used, else the one whose turn it is.

use super::{Decision, NeedsClaim, NoRoute, Outlook, Why};
use crate::routing_key::Pool;
use crate::rule::{Fired, Rule};
use shardgate_discovery::{Shard, Snapshot};
use shardgate_peering_core::ShardName;
use std::sync::Arc;

/// What the stick table has to do with a request to a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stick<'a> {
    /// Nothing: the pool takes turns, or the request has no cookie.
    Turns,
    /// It has no entry for the cookie yet.
    New,
    /// The cookie's entry names this server.
    Entry(&'a ShardName),
}

/// Decides about a request to a pool. An entry is left when its server has no weight or no place in the pool any more, was tried in
/// vain, or failed here a moment ago while another one did not.
///
/// # Errors
/// [`NoRoute::Pool`] when no server is left.
pub fn in_pool(
    pool: &Pool,
    snapshot: &Snapshot,
    stick: Stick<'_>,
    outlook: &Outlook<'_>,
    fired: &mut Fired,
) -> Result<Decision, NoRoute> {
    fired.note(Rule::Pool);
    if stick != Stick::Turns {
        fired.note(Rule::PoolCookie);
    }
    let entry = match stick {
        Stick::Turns | Stick::New => None,
        Stick::Entry(name) => Some(name),
    };
    let choose = |usable: &dyn Fn(&Shard) -> bool| {
        let stuck =
            entry.and_then(|name| pool.named(snapshot, name, usable)).map(|server| (server, Why::Entry));
        stuck.or_else(|| pool.server(snapshot, outlook.nonce, usable).map(|server| (server, Why::Pool)))
    };
    let untried = |server: &Shard| outlook.excluded != Some(&server.name);
    let (server, why) = choose(&|server| untried(server) && !(outlook.suspect)(&server.name))
        .or_else(|| choose(&untried))
        .ok_or_else(|| {
            fired.note(Rule::TriedInVain);
            NoRoute::Pool { pool: pool.name.clone() }
        })?;
    let claim = match stick {
        _ if why == Why::Entry => NeedsClaim::No,
        Stick::Turns => NeedsClaim::No,
        Stick::New => NeedsClaim::Join,
        Stick::Entry(failed) => NeedsClaim::Down { failed: failed.clone() },
    };
    Ok(Decision { shard: Arc::clone(server), why, claim })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Missing;
    use crate::routing_key::PoolServer;
    use shardgate_discovery::RegionName;

    fn name(number: u8) -> ShardName {
        ShardName::parse(&format!("chat-10.0.0.{number}-1")).unwrap()
    }

    /// Where a request goes: three servers, of which the third has no weight; `turn` 0 is the first one's.
    fn said(stick: Stick<'_>, turn: u64, excluded: Option<u8>, suspects: &[u8]) -> String {
        let servers = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1 weight=0"];
        let servers = servers.iter().map(|text| PoolServer::parse(text).unwrap()).collect();
        let region = RegionName::parse("r").unwrap();
        let pool =
            Pool::new(ShardName::parse("chat").unwrap(), vec!["/".to_owned()], servers, &region).unwrap();
        let excluded = excluded.map(name);
        let outlook = Outlook {
            excluded: excluded.as_ref(),
            suspect: &|server| suspects.iter().any(|number| name(*number) == *server),
            conferences: &|_| 0,
            missing: &|_| Missing::Gone,
            balance_percent: 150,
            nonce: turn,
        };
        match in_pool(&pool, &Snapshot::default(), stick, &outlook, &mut Fired::default()) {
            Ok(Decision { shard, why, claim }) => {
                let claim = match claim {
                    NeedsClaim::No => "",
                    NeedsClaim::Join => " join",
                    NeedsClaim::Down { .. } => " down",
                };
                format!("{} {}{claim}", shard.id + 1, why.as_str())
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn turns_ask_nobody_and_new_cookies_join() {
        assert_eq!(said(Stick::Turns, 0, None, &[]), "1 pool");
        assert_eq!(said(Stick::Turns, 1, None, &[]), "2 pool");
        assert_eq!(said(Stick::New, 0, None, &[]), "1 pool join");
        assert_eq!(said(Stick::New, 0, None, &[1]), "2 pool join");
    }

    #[test]
    fn an_entry_is_followed_while_its_server_can_be_used() {
        let (first, second, third, gone) = (name(1), name(2), name(3), name(9));
        for turn in 0..4 {
            assert_eq!(said(Stick::Entry(&first), turn, None, &[]), "1 entry");
            assert_eq!(said(Stick::Entry(&second), turn, None, &[1]), "2 entry");
            // Left: without weight, not in the pool, suspected, tried in vain.
            assert_eq!(said(Stick::Entry(&third), turn, None, &[1]), "2 pool down");
            assert_eq!(said(Stick::Entry(&gone), turn, None, &[1]), "2 pool down");
            assert_eq!(said(Stick::Entry(&first), turn, None, &[1]), "2 pool down");
            assert_eq!(said(Stick::Entry(&first), turn, Some(1), &[]), "2 pool down");
            // Where all are suspected there is no better one to go to.
            assert_eq!(said(Stick::Entry(&first), turn, None, &[1, 2]), "1 entry");
            assert_eq!(said(Stick::Entry(&second), turn, Some(1), &[1, 2]), "2 entry");
            assert_eq!(said(Stick::Entry(&first), turn, Some(1), &[1, 2]), "2 pool down");
        }
    }

    #[test]
    fn nobody_is_left() {
        let servers = vec![PoolServer::parse("10.0.0.1:1").unwrap()];
        let region = RegionName::parse("r").unwrap();
        let pool =
            Pool::new(ShardName::parse("chat").unwrap(), vec!["/".to_owned()], servers, &region).unwrap();
        let tried = name(1);
        let outlook = Outlook {
            excluded: Some(&tried),
            suspect: &|_| false,
            conferences: &|_| 0,
            missing: &|_| Missing::Gone,
            balance_percent: 150,
            nonce: 0,
        };
        for stick in [Stick::Turns, Stick::New, Stick::Entry(&tried)] {
            let decided = in_pool(&pool, &Snapshot::default(), stick, &outlook, &mut Fired::default());
            assert!(matches!(decided, Err(NoRoute::Pool { .. })), "{stick:?}");
        }
    }
}
