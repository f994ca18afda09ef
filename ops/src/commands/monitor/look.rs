//! One look at everything: every node's status and table, the HAProxies', the shards' census.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use shardgate_discovery::consul::Reports;
use shardgate_proto::admin::{StatusRequest, StatusResponse, TableRequest};
use tokio::task::JoinSet;

use super::super::census::Census;
use super::finding::{Finding, Kind};
use super::haproxy::{HaProxy, Names, Servers};
use super::judge::{Sight, judge, judge_rest};
use super::mesh;
use super::rows::{Broken, Listing, Merge, Row};
use super::snapshot::Records;
use crate::consul::Consul;
use crate::fleet::{Fleet, Unasked};
use crate::node::{AskError, Node};

/// Findings that are kept; of more only their number is.
const FINDINGS_MAX: usize = 100_000;

/// Whom a look asks.
pub(super) struct Whom<'a> {
    pub(super) consul: Option<&'a Consul>,
    pub(super) haproxies: &'a [HaProxy],
    /// The HAProxies' stick table.
    pub(super) table: &'a str,
    pub(super) key_len: usize,
    /// How old what a census says may be.
    pub(super) census_lag: Duration,
}

/// What a look saw.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// Whose tables were read.
    pub(super) tables: Vec<String>,
    pub(super) unasked: Vec<Unasked>,
    /// Live ones, over all tables.
    pub(super) conferences: u64,
    pub(super) findings: Vec<Finding>,
    /// Findings that there was no room for.
    pub(super) beyond: u64,
    /// Every shard that some node knows, and whether a conference may be put there.
    pub(super) shards: BTreeMap<String, bool>,
    /// The servers of each HAProxy that answered.
    pub(super) servers: Vec<(HaProxy, Servers)>,
    /// Nodes that answered, to give orders to; ready ones first.
    pub(super) nodes: Vec<Node>,
}

/// What the first look found, by which the second one is narrowed.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    by_subject: BTreeMap<String, Vec<Finding>>,
}

impl Suspects {
    pub(super) fn new(findings: Vec<Finding>) -> Self {
        let mut suspects = Self::default();
        for finding in findings {
            suspects.by_subject.entry(finding.subject.clone()).or_default().push(finding);
        }
        suspects
    }

    fn had(&self, finding: &Finding) -> bool {
        let before = self.by_subject.get(&finding.subject).map_or(&[][..], Vec::as_slice);
        before.iter().any(|before| finding.is_still(before))
    }
}

impl Look {
    fn add(&mut self, finding: Finding, suspects: Option<&Suspects>) {
        if suspects.is_some_and(|suspects| !suspects.had(&finding)) {
            return;
        }
        if self.findings.len() < FINDINGS_MAX { self.findings.push(finding) } else { self.beyond += 1 }
    }

    /// How many there are of each kind.
    pub(super) fn counts(&self) -> BTreeMap<Kind, u64> {
        let mut counts: BTreeMap<Kind, u64> = Kind::ALL.into_iter().map(|kind| (kind, 0)).collect();
        for finding in &self.findings {
            *counts.entry(finding.kind).or_default() += 1;
        }
        counts
    }
}

/// Looks once. With `suspects` only what they had already is found.
pub(super) async fn look(
    fleet: &mut Fleet,
    whom: &Whom<'_>,
    suspects: Option<&Suspects>,
    mut records: Option<&mut Records>,
) -> Result<Look, String> {
    let mut look = Look::default();
    let round = fleet.sessions().await;
    look.unasked = round.unasked;
    let (mut statuses, mut listings, mut names) = (Vec::new(), Vec::new(), Names::default());
    let mut asking: JoinSet<(usize, Node, Result<StatusResponse, AskError>)> = JoinSet::new();
    for (place, mut node) in fleet.answering().enumerate() {
        asking.spawn(async move {
            let said = node.client.status(StatusRequest {}).await.map_err(node.refused());
            (place, node, said.map(tonic::Response::into_inner))
        });
    }
    let mut heard = asking.join_all().await;
    heard.sort_unstable_by_key(|(place, ..)| *place);
    for (_, mut node, said) in heard {
        let stream = async {
            let status = said?;
            let request = TableRequest { key: String::new(), with_sessions: true };
            let stream = node.client.table(request).await.map_err(node.refused())?.into_inner();
            Ok::<_, AskError>((status, stream))
        };
        match stream.await {
            Ok((status, stream)) => {
                look.tables.push(status.node.clone());
                let at = if status.ready { 0 } else { look.nodes.len() };
                look.nodes.insert(at, node);
                statuses.push(status);
                listings.push(Listing::Node(Box::new(stream)));
            }
            Err(error) => look.unasked.push(Unasked { name: node.address.clone(), why: error.to_string() }),
        }
    }
    for shard in statuses.iter().flat_map(|status| &status.shards) {
        names.know(&shard.name, &shard.address);
        *look.shards.entry(shard.name.clone()).or_default() |= shard.state != "maint";
    }
    for haproxy in whom.haproxies {
        match haproxy.read(whom.table, &mut names).await {
            Ok((servers, rows)) => {
                look.tables.push(haproxy.name());
                look.servers.push((haproxy.clone(), servers));
                listings.push(Listing::of(rows));
            }
            Err(why) => look.unasked.push(Unasked { name: haproxy.name(), why }),
        }
    }
    mesh::judge(&statuses).into_iter().for_each(|finding| look.add(finding, suspects));
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64);
    let mut census = census(whom.consul, &mut look, now_ms).await;
    let sight = Sight {
        tables: look.tables.clone(),
        haproxies: look.servers.len(),
        shards: look.shards.keys().cloned().collect(),
        haproxy_key_len: whom.key_len,
        census_lag_ms: whom.census_lag.as_millis() as u64,
        now_ms,
    };
    let broken = |tables: &[String], Broken { listing, why }: Broken| {
        let name = tables.get(listing).cloned().unwrap_or_default();
        Unasked { name, why: format!("its table could not be read to the end: {why}") }
    };
    let mut merge = match Merge::begin(listings).await {
        Ok(merge) => merge,
        Err(why) => {
            look.unasked.push(broken(&look.tables, why));
            return Ok(look);
        }
    };
    loop {
        let rows = match merge.next().await {
            Ok(Some(rows)) => rows,
            Ok(None) => break,
            // What is missing from here on would look as if it were gone.
            Err(why) => {
                look.unasked.push(broken(&look.tables, why));
                return Ok(look);
            }
        };
        if rows.iter().flatten().any(|row| row.shard.is_some()) {
            look.conferences += 1;
        }
        if let Some(records) = records.as_deref_mut() {
            records.note(&rows)?;
        }
        judge(&sight, &rows, &mut census).into_iter().for_each(|finding| look.add(finding, suspects));
    }
    // Of a node that was not asked nobody knows what it has.
    if look.unasked.is_empty() {
        judge_rest(&sight, &census).into_iter().for_each(|finding| look.add(finding, suspects));
    }
    Ok(look)
}

/// What shards report; whose list cannot be had is one who could not be asked. Shards that no node knows are gone, and their last words with them.
async fn census(consul: Option<&Consul>, look: &mut Look, now_ms: u64) -> Census {
    let Some(consul) = consul else { return Census::default() };
    let answers = match consul.reports().await {
        Ok(answers) => answers,
        Err(error) => {
            look.unasked.push(Unasked { name: "the shards' census".to_owned(), why: error.to_string() });
            return Census::default();
        }
    };
    let mut reports: Vec<Reports> = Vec::new();
    let mut seen = HashSet::new();
    for (datacenter, answer) in answers {
        match answer {
            Ok(mut read) => {
                read.censuses.retain(|shard, _| {
                    let is_known = look.shards.is_empty() || look.shards.contains_key(shard.as_str());
                    is_known && seen.insert(shard.clone())
                });
                for record in &read.invalid {
                    let name = format!("the census of {datacenter}");
                    look.unasked.push(Unasked { name, why: record.to_string() });
                }
                reports.push(read);
            }
            Err(error) => {
                let name = format!("the census of {datacenter}");
                look.unasked.push(Unasked { name, why: error.to_string() });
            }
        }
    }
    Census::new(&reports, now_ms)
}

/// The shard that most tables have a conference on, and all its sessions.
pub(super) fn most(rows: &[Option<Row>]) -> Option<(String, u64)> {
    let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
    for shard in rows.iter().flatten().filter_map(|row| row.shard.as_deref()) {
        *votes.entry(shard).or_default() += 1;
    }
    let (shard, _) = votes.into_iter().max_by_key(|(shard, votes)| (*votes, std::cmp::Reverse(*shard)))?;
    let sessions = rows.iter().flatten().flat_map(|row| &row.sessions).map(|on| on.sessions).sum();
    Some((shard.to_owned(), sessions))
}
