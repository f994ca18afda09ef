//! Where a request to a pool goes: its cookie's server while that can be used, else the one whose turn it is.

use super::{Decision, NeedsClaim, NoRoute, Outlook, Why};
use crate::routing_key::Pool;
use crate::rule::{Fired, Rule};
use shardgate_discovery::{Shard, ShardState, Snapshot};
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

/// Decides about a request to a pool. An entry is left for good when its server has no weight or no place in the pool any more, or is in maint:
/// then its cookie moves. While its server is down, was tried in vain, or failed here a moment ago (and another one did not), another one
/// answers, and the cookie stays where it is: its sessions come back when its server does.
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
    let state = |server: &Shard| outlook.health.of(&server.name).state.unwrap_or(ShardState::Ready);
    let kept = match stick {
        Stick::Turns | Stick::New => None,
        Stick::Entry(name) => pool.named(snapshot, name, &|server| state(server) != ShardState::Maint),
    };
    let weight = |server: &Shard| match state(server) {
        ShardState::Ready => outlook.health.of(&server.name).share.of_weight(server.weight),
        ShardState::Drain | ShardState::Maint => 0,
    };
    let choose = |usable: &dyn Fn(&Shard) -> bool| {
        let stuck = kept.filter(|server| usable(server)).map(|server| (server, Why::Entry));
        stuck.or_else(|| {
            let server = pool.server(snapshot, outlook.nonce, &weight, usable)?;
            Some((server, Why::Pool))
        })
    };
    let reached = |server: &Shard| outlook.reaches(&server.name);
    let (server, why) = choose(&|server| reached(server) && !(outlook.suspect)(&server.name))
        .or_else(|| choose(&reached))
        .ok_or_else(|| {
            fired.note(Rule::TriedInVain);
            NoRoute::Pool { pool: pool.name.clone() }
        })?;
    let claim = match stick {
        Stick::New => NeedsClaim::Join,
        Stick::Entry(failed) if kept.is_none() => NeedsClaim::Maint { failed: failed.clone() },
        Stick::Turns | Stick::Entry(_) => NeedsClaim::No,
    };
    Ok(Decision { shard: Arc::clone(server), why, claim })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Health;
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
            detour: &|_| false,
            conferences: &|_| 0,
            health: &Health::default(),
            balance_percent: 150,
            nonce: turn,
        };
        match in_pool(&pool, &Snapshot::default(), stick, &outlook, &mut Fired::default()) {
            Ok(Decision { shard, why, claim }) => {
                let claim = match claim {
                    NeedsClaim::No => "",
                    NeedsClaim::Join => " join",
                    NeedsClaim::Down { .. } | NeedsClaim::Maint { .. } => " down",
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
            // Left for good: without weight, not in the pool.
            assert_eq!(said(Stick::Entry(&third), turn, None, &[1]), "2 pool down");
            assert_eq!(said(Stick::Entry(&gone), turn, None, &[1]), "2 pool down");
            // For a while: suspected, tried in vain.
            assert_eq!(said(Stick::Entry(&first), turn, None, &[1]), "2 pool");
            assert_eq!(said(Stick::Entry(&first), turn, Some(1), &[]), "2 pool");
            // Where all are suspected there is no better one to go to.
            assert_eq!(said(Stick::Entry(&first), turn, None, &[1, 2]), "1 entry");
            assert_eq!(said(Stick::Entry(&second), turn, Some(1), &[1, 2]), "2 entry");
            assert_eq!(said(Stick::Entry(&first), turn, Some(1), &[1, 2]), "2 pool");
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
            detour: &|_| false,
            conferences: &|_| 0,
            health: &Health::default(),
            balance_percent: 150,
            nonce: 0,
        };
        for stick in [Stick::Turns, Stick::New, Stick::Entry(&tried)] {
            let decided = in_pool(&pool, &Snapshot::default(), stick, &outlook, &mut Fired::default());
            assert!(matches!(decided, Err(NoRoute::Pool { .. })), "{stick:?}");
        }
    }
}
