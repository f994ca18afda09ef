//! What a rule looked at and what it said, in words. Everything is taken from what the rules made of the request.

use super::Step;
use crate::rescue::Failure;
use crate::route::{Decision, NeedsClaim, Topology};
use crate::routing_key::{Compat, Routing, RoutingKey, Store};
use crate::rule::{Fired, Rule};
use http::header::{HOST, REFERER, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderName};
use shardgate_discovery::ReleaseName;
use shardgate_peering_core::ShardName;

/// A request, and what came of it.
pub(super) struct Facts<'a> {
    pub(super) head: &'a Parts,
    pub(super) key: Option<&'a RoutingKey<'a>>,
    pub(super) entry: Option<&'a ShardName>,
    pub(super) decided: &'a Result<Decision, Failure>,
    pub(super) routing: &'a Routing,
    pub(super) topology: &'a Topology,
    pub(super) fired: Fired,
}

impl Facts<'_> {
    pub(super) fn step(&self, rule: Rule) -> Step {
        Step {
            stage: rule.stage().title(),
            rule: rule.name(),
            follows: rule.follows().iter().map(|number| format!("R{number:02}")).collect(),
            looked_at: self.looked_at(rule),
            says: self.says(rule),
        }
    }

    fn looked_at(&self, rule: Rule) -> String {
        match rule {
            Rule::ConnectMethod => format!("method {}", self.head.method),
            Rule::TargetForm | Rule::TargetBytes | Rule::HeadTooLarge => format!("target {}", self.head.uri),
            Rule::HostsDiffer | Rule::HostPrefix => self.header(&HOST, "Host"),
            Rule::HttpsRedirect => "the listener".to_owned(),
            Rule::DeniedUserAgent => self.header(&USER_AGENT, "User-Agent"),
            Rule::DeniedReferer | Rule::RefererBan => self.header(&REFERER, "Referer"),
            Rule::HealthPath
            | Rule::NotATenant
            | Rule::TenantFromPath
            | Rule::NotARoom
            | Rule::TrailingSlash
            | Rule::RoomFromPath
            | Rule::SignalingPath
            | Rule::Pool
            | Rule::PoolCookie
            | Rule::NamedShardPath => format!("path {}", self.head.uri.path()),
            Rule::RoomParameter | Rule::EmptyRoom | Rule::ReleaseOverride | Rule::StickFlag => {
                format!("query {}", self.head.uri.query().unwrap_or(""))
            }
            Rule::ClientHeaders => "X-Room, X-Group, X-StickTokenFlag".to_owned(),
            Rule::LastCommaPart | Rule::PercentSign | Rule::TokenTooLong => "tenant and room".to_owned(),
            Rule::UnbanTenant | Rule::BanTenantPrefix | Rule::BanTenantExact | Rule::BanTenant => {
                format!("tenant {}", self.tenant())
            }
            Rule::BanRoomPrefix | Rule::BanRoomExact | Rule::BanRoom | Rule::NamedShardSuffix => {
                format!("room {}", self.room())
            }
            Rule::BanHiddenRoom => {
                format!("room {}", self.key.map_or("", RoutingKey::hidden_room))
            }
            Rule::BanSubstring | Rule::TokenHash | Rule::FirstJoin => format!("token {}", self.token()),
            Rule::BanDenied | Rule::BanRedirect => format!("parameter {}", self.routing.room_parameter),
            Rule::Entry | Rule::EntryUnusable | Rule::Move => {
                format!("entry of {} on {}", self.token(), self.entry.map_or("", ShardName::as_str))
            }
            Rule::AskedRelease | Rule::AskedShard | Rule::NotServed | Rule::TenantPin => self.asked(),
            Rule::LiveRelease | Rule::NoLiveRelease => "live_release".to_owned(),
            Rule::BoundedLoad => "conferences of each shard".to_owned(),
            Rule::NoToken
            | Rule::FallbackRegion
            | Rule::FallbackRelease
            | Rule::OnlySuspects
            | Rule::OnlyByPeers
            | Rule::TriedInVain
            | Rule::NoShard => "shards, nearest first".to_owned(),
        }
    }

    fn says(&self, rule: Rule) -> String {
        match rule {
            Rule::ConnectMethod
            | Rule::TargetForm
            | Rule::HostsDiffer
            | Rule::HttpsRedirect
            | Rule::DeniedUserAgent
            | Rule::DeniedReferer
            | Rule::RefererBan
            | Rule::TargetBytes
            | Rule::HeadTooLarge
            | Rule::BanDenied
            | Rule::BanRedirect
            | Rule::NoLiveRelease
            | Rule::TriedInVain
            | Rule::NoShard => self.status(),
            Rule::HealthPath => "a health check: no tenant, no room".to_owned(),
            Rule::NotATenant => "no tenant".to_owned(),
            Rule::TenantFromPath => format!("tenant {}", self.tenant()),
            Rule::NotARoom => "no room in the path".to_owned(),
            Rule::RoomParameter if self.fired.has(Rule::EmptyRoom) => "no value".to_owned(),
            Rule::RoomParameter | Rule::RoomFromPath => format!("room {}", self.room()),
            Rule::EmptyRoom => "no room, whatever the path says".to_owned(),
            Rule::TrailingSlash => match self.routing.compat {
                Compat::None => "as without the slash".to_owned(),
                Compat::Haproxy => "a room of its own".to_owned(),
            },
            Rule::ClientHeaders | Rule::LastCommaPart | Rule::PercentSign => {
                format!("token {}", self.token())
            }
            Rule::ReleaseOverride => {
                let asked = self.key.and_then(RoutingKey::release_override).unwrap_or("");
                format!("{asked:?} is asked for; {}", self.stores())
            }
            Rule::SignalingPath | Rule::HostPrefix => format!("signaling: {}", self.stores()),
            Rule::StickFlag => self.stores(),
            Rule::TokenTooLong => match self.decided {
                Err(_) => self.status(),
                Ok(_) => "routed by its hash, never stored".to_owned(),
            },
            Rule::UnbanTenant
            | Rule::BanSubstring
            | Rule::BanTenantPrefix
            | Rule::BanRoomPrefix
            | Rule::BanTenantExact
            | Rule::BanRoomExact
            | Rule::BanTenant
            | Rule::BanRoom
            | Rule::BanHiddenRoom => {
                let banned = self.fired.has(Rule::BanDenied) || self.fired.has(Rule::BanRedirect);
                if banned { "ban".to_owned() } else { "allow".to_owned() }
            }
            Rule::Pool => format!("pool {}: {}", self.pool(), self.shard()),
            Rule::PoolCookie => self.by_cookie(),
            Rule::Entry
            | Rule::NamedShardPath
            | Rule::NamedShardSuffix
            | Rule::AskedShard
            | Rule::TokenHash
            | Rule::FallbackRegion
            | Rule::FallbackRelease => format!("shard {}", self.shard()),
            Rule::EntryUnusable => self.why_unusable(),
            Rule::AskedRelease | Rule::TenantPin => format!("release {}", self.named().unwrap_or("")),
            Rule::NotServed => "nothing usable of that name".to_owned(),
            Rule::LiveRelease => {
                let live = self.topology.snapshot().live_release();
                format!("release {}", live.map_or("", ReleaseName::as_str))
            }
            Rule::FirstJoin => format!("makes an entry under {}", self.token()),
            Rule::Move => match self.decided {
                Ok(Decision { claim: NeedsClaim::Down { failed }, .. }) => {
                    format!("moves the entry away from {failed}")
                }
                Ok(_) | Err(_) => "moves the entry".to_owned(),
            },
            Rule::BoundedLoad => "as if no shard were full".to_owned(),
            Rule::NoToken => "by turns".to_owned(),
            Rule::OnlySuspects => "taken all the same".to_owned(),
            Rule::OnlyByPeers => "by a peer".to_owned(),
        }
    }

    /// All lines of a header.
    fn header(&self, name: &HeaderName, shown: &str) -> String {
        let values = |headers: &HeaderMap| {
            let lines = headers.get_all(name).iter();
            lines.map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned()).collect::<Vec<_>>()
        };
        format!("{shown}: {}", values(&self.head.headers).join(" | "))
    }

    fn token(&self) -> &str {
        self.key.map_or("", RoutingKey::token)
    }

    fn tenant(&self) -> &str {
        self.key.map_or("", RoutingKey::banned_group).trim_end_matches('/')
    }

    fn room(&self) -> String {
        self.key.map_or_else(String::new, |key| key.banned_room().into_owned())
    }

    fn stores(&self) -> String {
        match self.key.map(RoutingKey::store) {
            Some(Store::MatchOrStore) => "a room makes an entry".to_owned(),
            Some(Store::MatchOnly | Store::Nothing) | None => "no room to store".to_owned(),
        }
    }

    fn status(&self) -> String {
        match self.decided {
            Err(failure) => failure.status().to_string(),
            Ok(_) => String::new(),
        }
    }

    fn shard(&self) -> &str {
        self.decided.as_ref().map_or("", |decision| decision.shard.name.as_str())
    }

    fn pool(&self) -> &str {
        let pool = self.key.and_then(|key| self.routing.pools.get(key.pool()?));
        pool.map_or("", |pool| pool.name.as_str())
    }

    /// What the entry of a pool's cookie says.
    fn by_cookie(&self) -> String {
        match (self.entry, self.decided) {
            (None, _) => "no entry yet: the one whose turn it is gets it".to_owned(),
            (Some(entry), Ok(decision)) if decision.shard.name == *entry => format!("entry on {entry}"),
            (Some(entry), _) => format!("entry on {entry}, which cannot be used"),
        }
    }

    /// What `release=` or the pin names.
    fn named(&self) -> Option<&str> {
        let key = self.key?;
        let pin = || self.topology.snapshot().tenant_pin(key.tenant()?).map(ReleaseName::as_str);
        key.release_override().or_else(pin)
    }

    fn asked(&self) -> String {
        match self.key.and_then(RoutingKey::release_override) {
            Some(name) => format!("release={name}"),
            None => format!("pin of {} to {}", self.tenant(), self.named().unwrap_or("")),
        }
    }

    fn why_unusable(&self) -> String {
        let shard = self.entry.and_then(|name| self.topology.snapshot().shard(name.as_str()));
        match shard {
            // Nothing else keeps a conference from a shard that is listed.
            Some(_) => "the shard is in maint".to_owned(),
            None => "the shard is not listed".to_owned(),
        }
    }
}
