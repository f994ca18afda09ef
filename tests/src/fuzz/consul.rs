//! Lists as Consul answers them: whatever they hold, what comes of them is whole, and the same in whatever order it came.

use shardgate_discovery::consul::{
    AddressKind, Datacenter, InvalidRecord, List, Place, PolicyKind, ServiceKind, ServiceNames, read_lists,
    read_reports,
};
use shardgate_discovery::{EnvironmentName, SHARD_ID_MAX, ServiceName, Snapshot};

/// A list each line: a letter that says which, and its JSON.
pub fn consul(data: &[u8]) {
    let parse = |name| Datacenter::parse(name).expect("a datacenter's name");
    let place = Place {
        environment: EnvironmentName::parse("prod").expect("a name"),
        datacenter: parse("prod-east"),
        services: ServiceNames::default(),
        remote_address: AddressKind::Wan,
    };
    let mut lists = Vec::new();
    for line in data.split(|byte| *byte == b'\n') {
        let Some((letter, json)) = line.split_first() else { continue };
        let services = |kind| List::Services(parse("prod-east"), kind);
        lists.push(match letter {
            b's' => (services(ServiceKind::Shards), json),
            b'a' => (services(ServiceKind::Standalones), json),
            b'n' => (services(ServiceKind::Nodes), json),
            b'p' => (services(ServiceKind::Proxies), json),
            b'j' => (List::Pool(ServiceName::parse("jigasi").expect("a service's name")), json),
            b'r' => (List::Keys(PolicyKind::Releases), json),
            b't' => (List::Keys(PolicyKind::ShardStates), json),
            b'l' => (List::Keys(PolicyKind::BanLists), json),
            b'b' => (List::Keys(PolicyKind::Bans), json),
            _ => {
                reports(json);
                continue;
            }
        });
    }
    // A list counts as it was heard last.
    let mut seen: Vec<List> = Vec::new();
    lists.retain(|(list, _)| {
        !seen.contains(list) && {
            seen.push(list.clone());
            true
        }
    });
    let read = |lists: &[(List, &[u8])]| read_lists(&place, lists.iter().cloned());
    let Ok((snapshot, invalid)) = read(&lists) else { return };
    lists.reverse();
    let again = read(&lists);
    assert!(
        again.is_ok_and(|(again, _)| again.content_equals(&snapshot)),
        "in another order, another snapshot"
    );
    whole(&snapshot);
    said(&invalid);
}

fn whole(snapshot: &Snapshot) {
    let mut ids: Vec<u32> = snapshot.shards().iter().map(|shard| shard.id).collect();
    ids.sort_unstable();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]) && ids.iter().all(|id| *id <= SHARD_ID_MAX));
    assert!(snapshot.shards().is_sorted_by(|one, next| one.name < next.name));
    let servers = snapshot.services().flat_map(|(_, servers)| servers);
    for shard in snapshot.shards().iter().chain(servers) {
        let ip = shard.address.ip();
        assert!(shard.address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast(), "{shard}");
    }
    assert!(snapshot.peers().iter().all(|peer| peer.address.port() != 0));
}

fn said(invalid: &[InvalidRecord]) {
    for record in invalid {
        assert!(!record.fault.to_string().chars().any(char::is_control), "{:?}", record.fault.to_string());
    }
}

fn reports(json: &[u8]) {
    let Some(reports) = read_reports("prod", json) else { return };
    said(&reports.invalid);
    let again = read_reports("prod", json);
    assert_eq!(again, Some(reports));
}
