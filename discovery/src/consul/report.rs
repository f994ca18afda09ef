//! What shards report of themselves every minute below `signal-report/{env}/`: their conferences. For who looks on, never for routing.

use super::agent::{Agent, Datacenter, Reading, Target, key_path};
use super::error::AgentError;
use super::policy::Pair;
use super::record::{InvalidRecord, RecordFault};
use super::rights::Right;
use serde::Deserialize;
use shardgate_peering_core::ShardName;
use std::collections::BTreeMap;

/// The conferences of a shard, as its Prosody counts them (`mod_muc_census`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Census {
    /// In the order of the report.
    pub rooms: Vec<CensusRoom>,
}

/// A conference of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CensusRoom {
    /// Its address, `room@conference.tenant.meet.example.com`.
    #[serde(rename = "room_name")]
    pub name: String,
    /// How many are in it.
    #[serde(default, deserialize_with = "number")]
    pub participants: u64,
    /// When it began, as the shard's clock has it; seconds or milliseconds since 1970, as Prosody's version writes it.
    #[serde(default, deserialize_with = "number")]
    pub created_time: u64,
}

/// What a datacenter's shards report.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reports {
    /// By shard.
    pub censuses: BTreeMap<ShardName, Census>,
    /// Reports that cannot be read.
    pub invalid: Vec<InvalidRecord>,
}

/// Lua writes whole numbers as it likes: `1700000000`, `1.7e9`, or in quotes.
fn number<'de, D: serde::Deserializer<'de>>(value: D) -> Result<u64, D::Error> {
    let value = serde_json::Value::deserialize(value)?;
    let whole = value.as_u64().or_else(|| value.as_f64().map(|number| number as u64));
    Ok(whole.or_else(|| value.as_str()?.parse().ok()).unwrap_or(0))
}

fn read(environment: &str, pairs: &[Pair]) -> Reports {
    let prefix = prefix(environment);
    let mut reports = Reports::default();
    for pair in pairs {
        let Some(shard) = pair.key.strip_prefix(&prefix).filter(|rest| !rest.is_empty()) else { continue };
        let census = ShardName::parse(shard)
            .map_err(|_| RecordFault::value("shard", shard, "1 to 128 of A-Z a-z 0-9 . _ -"))
            .and_then(|shard| Ok((shard, census(&pair.text()?)?)));
        match census {
            Ok((shard, census)) => {
                reports.censuses.insert(shard, census);
            }
            Err(fault) => reports.invalid.push(InvalidRecord { place: format!("key {}", pair.key), fault }),
        }
    }
    reports
}

/// The census in a report: at its top, or in one of its parts.
fn census(text: &str) -> Result<Census, RecordFault> {
    const FIELD: &str = "room_census";
    const EXPECTED: &str = "JSON with room_census: a list of room_name, participants and created_time";
    let wrong = || RecordFault::value("value", text, EXPECTED);
    let report: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|_| wrong())?;
    let inner = report.values().find_map(|part| part.get(FIELD));
    let rooms = report.get(FIELD).or(inner);
    match rooms {
        // An empty table of Lua's is an object.
        Some(serde_json::Value::Object(empty)) if empty.is_empty() => Ok(Census::default()),
        Some(rooms) => {
            let rooms = Vec::<CensusRoom>::deserialize(rooms).map_err(|_| wrong())?;
            Ok(Census { rooms })
        }
        None => Err(RecordFault::Missing { field: FIELD, expected: EXPECTED }),
    }
}

/// What a datacenter's shards report, of the list as Consul answers it, in JSON; `None` when it is none.
#[must_use]
pub fn read_reports(environment: &str, json: &[u8]) -> Option<Reports> {
    serde_json::from_slice::<Vec<Pair>>(json).ok().map(|pairs| read(environment, &pairs))
}

fn prefix(environment: &str) -> String {
    format!("signal-report/{environment}/")
}

impl Agent {
    /// What the shards of a datacenter report, at once and from any server: it is a minute old anyway.
    ///
    /// # Errors
    /// [`AgentError`]; one report that cannot be read is none.
    pub async fn reports(&self, datacenter: &Datacenter, environment: &str) -> Result<Reports, AgentError> {
        let prefix = prefix(environment);
        let target = Target {
            path: key_path(&prefix),
            query: vec![("recurse", String::new()), ("stale", String::new())],
            right: Right::Keys(prefix),
            datacenter: Some(datacenter.clone()),
        };
        let records = self.list::<Pair>(&target, Reading::Now).await?.records;
        if records.is_empty() {
            self.check_right(&target).await?;
        }
        Ok(read(environment, &records))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn censuses() {
        let room = |name: &str, participants, created_time| CensusRoom {
            name: name.to_owned(),
            participants,
            created_time,
        };
        let a = room("a@conference.meet", 3, 1_700_000_000);
        for (text, rooms) in [
            (
                r#"{"healthy":true,"room_census":[{"room_name":"a@conference.meet","participants":3,"created_time":1700000000}]}"#,
                vec![a.clone()],
            ),
            (
                r#"{"census":{"room_census":[{"room_name":"a@conference.meet","participants":3,"created_time":"1700000000","leaked":false}]}}"#,
                vec![a],
            ),
            (
                r#"{"room_census":[{"room_name":"b","participants":0,"created_time":1.7e12},{"room_name":"c","participants":1}]}"#,
                vec![room("b", 0, 1_700_000_000_000), room("c", 1, 0)],
            ),
            (r#"{"room_census":{}}"#, vec![]),
            (r#"{"room_census":[]}"#, vec![]),
        ] {
            assert_eq!(census(text).unwrap().rooms, rooms, "{text}");
        }
        for text in
            ["", "[]", "{}", r#"{"room_census":[{"participants":1}]}"#, r#"{"room_census":7}"#, "nonsense"]
        {
            assert!(census(text).is_err(), "{text}");
        }
    }
}
