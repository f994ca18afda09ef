//! `/metrics`: everything that is counted, in Prometheus' text format. Labels come from closed sets only, or name shards and
//! peers, or files of certificates; never keys.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use shardgate_discovery::{Origin, ShardState};
use shardgate_peering::core::{Agreement, LinkState};
use shardgate_peering::{LinkCounts, MeshStatus, RelaySide};
use std::time::Instant;

use super::AdminParts;
use crate::counters::{ClaimOutcome, ConnectReason, ProxyRefusal, Refused, TimeoutKind, Totals, TunnelEnd};
use crate::health::{AgentReport, Reach, ServerReport};
use crate::route::Why;

pub(super) fn router(parts: AdminParts) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(parts)
}

async fn metrics(State(parts): State<AdminParts>) -> impl IntoResponse {
    let reading = Reading {
        mesh: parts.table.status().await,
        links: parts.links.read(),
        watched: parts.health.report().await,
        totals: parts.counters.snapshot(),
        ready: i64::from(parts.not_ready().is_none()),
        parts,
    };
    let mut registry = Registry::with_prefix("shardgate");
    registry.register_collector(Box::new(reading));
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (StatusCode::OK, [(CONTENT_TYPE, kind)], text)
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, [(CONTENT_TYPE, "text/plain")], error.to_string()),
    }
}

#[derive(Debug)]
struct Reading {
    parts: AdminParts,
    mesh: MeshStatus,
    links: LinkCounts,
    watched: Vec<ServerReport>,
    totals: Totals,
    ready: i64,
}

type Written = Result<(), std::fmt::Error>;

struct Writer<'e>(DescriptorEncoder<'e>);

impl Writer<'_> {
    fn one(&mut self, name: &str, help: &str, metric: &impl EncodeMetric, kind: MetricType) -> Written {
        metric.encode(self.0.encode_descriptor(name, help, None, kind)?)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> Written {
        self.one(name, help, &ConstCounter::new(value), MetricType::Counter)
    }

    fn gauge(&mut self, name: &str, help: &str, value: i64) -> Written {
        self.one(name, help, &ConstGauge::new(value), MetricType::Gauge)
    }

    fn counters<'v>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'v str, u64)>,
    ) -> Written {
        let values = values.into_iter().map(|(value, number)| (value, ConstCounter::new(number)));
        self.family(name, help, MetricType::Counter, label, values)
    }

    fn gauges<'v>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'v str, u64)>,
    ) -> Written {
        let gauge = |number| ConstGauge::new(i64::try_from(number).unwrap_or(i64::MAX));
        let values = values.into_iter().map(|(value, number)| (value, gauge(number)));
        self.family(name, help, MetricType::Gauge, label, values)
    }

    fn family<'v, M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        label: &'static str,
        values: impl Iterator<Item = (&'v str, M)>,
    ) -> Written {
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (value, metric) in values {
            metric.encode(family.encode_family(&[(label, value)])?)?;
        }
        Ok(())
    }
}

impl Collector for Reading {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Written {
        let mut out = Writer(encoder);
        self.node(&mut out)?;
        self.certificates(&mut out)?;
        self.requests(&mut out)?;
        self.ceilings(&mut out)?;
        self.health(&mut out)?;
        self.table(&mut out)?;
        self.peers(&mut out)?;
        self.relays(&mut out)
    }
}

impl Reading {
    fn node(&self, out: &mut Writer<'_>) -> Written {
        let status = self.parts.discovery.status();
        let age = i64::try_from(status.last_good.elapsed().as_secs()).unwrap_or(i64::MAX);
        out.gauge("ready", "1 when this node should be sent traffic", self.ready)?;
        out.gauge("discovery_age_seconds", "Since discovery last had a good answer", age)?;
        let config = &self.parts.config;
        out.counter("config_reloads", "Changes of the configuration taken", config.reloads())?;
        out.counter("config_refused", "Changes of the configuration refused", config.refused())?;
        let waiting = i64::try_from(config.waiting()).unwrap_or(i64::MAX);
        out.gauge("config_restart_needed", "Changed fields that a restart alone brings into use", waiting)?;
        out.counter(
            "audit_log_lost",
            "Audit log lines lost, or not where they belong",
            self.parts.audit.lost(),
        )?;
        out.counter("discovery_changes", "Snapshots published", status.changes)?;
        let stale = i64::from(status.stale(Instant::now()).is_some());
        out.gauge("discovery_policy_stale", "1 while what operators want may be known as it was", stale)?;
        out.counter("discovery_refused", "Answers of discovery that were refused", status.refused)?;
        if status.parts.is_empty() && !matches!(status.origin, Origin::Disk { .. }) {
            return Ok(());
        }
        let invalid = i64::try_from(status.invalid).unwrap_or(i64::MAX);
        out.gauge(
            "discovery_invalid_records",
            "Records that are left out because they cannot be read",
            invalid,
        )?;
        let from_disk = i64::from(matches!(status.origin, Origin::Disk { .. }));
        out.gauge("discovery_from_disk", "1 while what was kept on disk is in use", from_disk)?;
        let not_kept = i64::from(status.not_kept.is_some());
        out.gauge("discovery_not_kept", "1 while what Consul said cannot be kept on disk", not_kept)?;
        let age = |at: Instant| ConstGauge::new(i64::try_from(at.elapsed().as_secs()).unwrap_or(i64::MAX));
        out.family(
            "discovery_part_age_seconds",
            "Since a list of Consul's last answered; lists that never did are missing",
            MetricType::Gauge,
            "list",
            status.parts.iter().filter_map(|part| Some((part.name.as_str(), age(part.last_good?)))),
        )
    }

    fn certificates(&self, out: &mut Writer<'_>) -> Written {
        let Some(tls) = &*self.parts.tls.borrow() else { return Ok(()) };
        let ends = tls.expiries().into_iter().map(|end| (end.path.display().to_string(), end.not_after));
        let ends: Vec<_> = ends.collect();
        out.family(
            "tls_certificate_expiry_timestamp_seconds",
            "notAfter of a certificate in use, as Unix time",
            MetricType::Gauge,
            "certificate",
            ends.iter().map(|(file, not_after)| (file.as_str(), ConstGauge::new(*not_after))),
        )?;
        let counts = tls.counts();
        out.counter("tls_reloads", "Changes of certificates and ticket keys taken", counts.reloads)?;
        out.counter("tls_reloads_refused", "Changes of certificates and ticket keys refused", counts.refused)
    }

    fn requests(&self, out: &mut Writer<'_>) -> Written {
        let totals = &self.totals;
        let connections = i64::try_from(totals.connections()).unwrap_or(i64::MAX);
        let tunnels = i64::try_from(totals.tunnels()).unwrap_or(i64::MAX);
        out.gauge("connections_open", "Client connections, tunnels included", connections)?;
        out.gauge("tunnels_open", "WebSocket tunnels", tunnels)?;
        let bosh = i64::try_from(totals.bosh_sessions).unwrap_or(i64::MAX);
        out.gauge(
            "bosh_sessions",
            "BOSH sessions: a request is held, or the last one ended a moment ago",
            bosh,
        )?;
        out.counter(
            "bosh_uncounted",
            "BOSH requests of no session, because there are too many",
            totals.bosh_uncounted,
        )?;
        let classes = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
        out.counters("responses", "Answers by class", "class", classes.into_iter().zip(totals.responses))?;
        let why = Why::ALL.iter().map(|why| why.as_str()).zip(totals.decisions);
        out.counters("decisions", "Requests by why they went to their shard", "why", why)?;
        let claims = ClaimOutcome::ALL.iter().map(|outcome| outcome.as_str()).zip(totals.claims);
        out.counters("claims", "Decisions asked of the mesh by outcome", "outcome", claims)?;
        let failures = ConnectReason::ALL.iter().map(|reason| reason.as_str()).zip(totals.connect_failures);
        out.counters("connect_failures", "Failed connections to shards", "reason", failures)?;
        let timeouts = TimeoutKind::ALL.iter().map(|kind| kind.as_str()).zip(totals.timeouts);
        out.counters("timeouts", "Timeouts by kind", "kind", timeouts)?;
        let ends = TunnelEnd::ALL.iter().map(|end| end.as_str()).zip(totals.tunnel_ends);
        out.counters("tunnel_ends", "Ended tunnels by why", "why", ends)?;
        let refusals = ProxyRefusal::ALL.iter().map(|why| why.as_str()).zip(totals.proxy_refusals);
        out.counters(
            "proxy_refusals",
            "Connections closed for want of a PROXY header that counts",
            "why",
            refusals,
        )?;
        for (name, help, value) in [
            ("proxy_headers", "Connections whose PROXY header was taken", totals.proxy_headers),
            ("https_redirects", "Requests over plain HTTP sent on to TLS", totals.https_redirects),
            ("connections", "Client connections accepted", totals.connections_opened),
            ("tls_handshakes", "TLS handshakes of clients", totals.handshakes),
            ("tls_handshakes_failed", "TLS handshakes of clients that failed", totals.handshakes_failed),
            ("http2_connections", "HTTP/2 connections of clients", totals.http2_connections),
            ("http2_calmed", "HTTP/2 connections ended for floods of resets or frames", totals.http2_calmed),
            ("requests", "Requests", totals.requests),
            ("parse_refusals", "Requests that the parser refused", totals.parse_refusals),
            ("rescues", "Error answers of this node's own making", totals.rescues),
            ("tunnels", "Tunnels opened", totals.tunnels_opened),
            ("client_received_bytes", "Read from clients", totals.client_bytes_in),
            ("client_sent_bytes", "Written to clients", totals.client_bytes_out),
            ("retries", "Further attempts at the same shard", totals.retries),
            ("redispatches", "Requests sent to another shard than chosen first", totals.redispatches),
            (
                "cookies_learned",
                "Cookies of pools told to the table as servers set them",
                totals.cookies_learned,
            ),
            ("cookies_lost", "Cookies of pools not told, table busy", totals.cookies_lost),
            ("access_log_lost", "Access log lines lost", totals.log_lines_lost),
        ] {
            out.counter(name, help, value)?;
        }
        Ok(())
    }

    fn ceilings(&self, out: &mut Writer<'_>) -> Written {
        let gate = &self.parts.gate;
        let refused = Refused::ALL.iter().map(|refused| refused.as_str()).zip(self.totals.refused);
        out.counters("refused", "Connections and requests turned away at a ceiling", "reason", refused)?;
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        out.gauge(
            "memory_resident_bytes",
            "Memory of this process at the last look",
            gauge(gate.memory_resident()),
        )?;
        if let Some(bytes) = gate.memory_max() {
            out.gauge("memory_max_bytes", "Memory beyond which nothing new is let in", gauge(bytes))?;
        }
        out.gauge("open_files_max", "Open files that this process may have", gauge(gate.open_files_max()))?;
        let known = gauge(gate.addresses_known() as u64);
        out.gauge("limited_addresses", "Client addresses with something open or used", known)?;
        if gate.shard_connections_max() > 0 {
            let max = gauge(gate.shard_connections_max() as u64);
            out.gauge("shard_connections_max", "Requests and tunnels that a shard gets at once", max)?;
        }
        if gate.counts_shards() {
            let loads = gate.shard_loads();
            let active = loads.iter().map(|load| (load.shard.as_str(), load.active as u64));
            out.gauges("shard_connections", "Requests and tunnels at a shard", "shard", active)?;
            let queued = loads.iter().map(|load| (load.shard.as_str(), load.queued as u64));
            out.gauges("shard_queued", "Requests that wait for a place at a shard", "shard", queued)?;
        }
        Ok(())
    }

    /// Servers that are checked, and those whose agents are asked.
    fn health(&self, out: &mut Writer<'_>) -> Written {
        let checked = || {
            let checks = self.watched.iter().filter_map(|report| Some((report, report.check.as_ref()?)));
            checks.map(|(report, check)| (report.name.as_str(), report, check))
        };
        if checked().next().is_some() {
            let up = checked().map(|(name, report, _)| (name, u64::from(report.standing.reach == Reach::Up)));
            out.gauges("shard_up", "1 when its checks say that a server is up", "shard", up)?;
            let passed = checked().map(|(name, _, check)| (name, check.passed));
            out.counters("shard_checks_passed", "Good checks of a server", "shard", passed)?;
            let failed = checked().map(|(name, _, check)| (name, check.failed));
            out.counters("shard_checks_failed", "Failed checks of a server", "shard", failed)?;
            let downs = checked().map(|(name, report, _)| (name, report.downs));
            out.counters("shard_downs", "How often a server went down", "shard", downs)?;
            let took = checked().map(|(name, _, check)| (name, ConstGauge::new(check.took.as_secs_f64())));
            let help = "How long the last check of a server took";
            out.family("shard_check_seconds", help, MetricType::Gauge, "shard", took)?;
        }
        let cut = self.watched.iter().map(|report| (report.name.as_str(), u64::from(report.cut.is_some())));
        out.gauges(
            "shard_cut",
            "1 while a shard is not reached from here, and requests go by a peer",
            "shard",
            cut,
        )?;
        let agents = || self.watched.iter().filter_map(|report| Some((report, report.agent.as_ref()?)));
        if agents().next().is_some() {
            let well = |(report, agent): (&'_ ServerReport, &AgentReport)| {
                report.standing.state != Some(ShardState::Maint) && agent.error.is_none()
            };
            let up = agents().map(|both| (both.0.name.as_str(), u64::from(well(both))));
            out.gauges(
                "shard_agent_up",
                "1 when a server's agent answers, and not that it is down",
                "shard",
                up,
            )?;
        }
        Ok(())
    }

    fn table(&self, out: &mut Writer<'_>) -> Written {
        let stats = &self.mesh.stats;
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        out.gauge("table_entries", "Live entries", count(self.mesh.entries))?;
        let what = "Live entries that the mesh takes: the smallest stick_table.size of the nodes connected";
        out.gauge("table_capacity", what, count(self.mesh.capacity))?;
        let snapshot = self.parts.discovery.current();
        let shards = snapshot
            .shards()
            .iter()
            .map(|shard| (shard.name.as_str(), self.parts.table.conferences(&shard.name)));
        out.gauges("shard_conferences", "Conferences on a shard over the whole mesh", "shard", shards)?;
        for (name, help, value) in [
            ("table_claims", "Claims of this node's requests", stats.claims),
            ("table_claims_asked", "Claims sent to another home", stats.claims_asked),
            ("table_claims_timed_out", "Homes that missed their budget", stats.claims_timed_out),
            ("table_decided_home", "Decisions as home", stats.decided_home),
            ("table_decided_alone", "Decisions without any home", stats.decided_alone),
            ("table_moved", "Conferences moved by this home", stats.moved),
            ("table_ended", "Conferences ended by this home", stats.ended),
            ("table_unstored_full", "New keys refused, table full", stats.unstored_full),
            ("table_unstored_overload", "New keys refused, too many claims", stats.unstored_overload),
            ("table_conflicts", "Entries that lost to this node's", stats.conflicts),
            ("table_entries_refused", "Absurd entries refused", stats.refused_entries),
            ("table_updates_sent", "Decisions and renewals sent", stats.updates_sent),
            ("table_updates_received", "Decisions and renewals received", stats.updates_received),
            ("table_hellos_resumed", "Peers that continued from the log", stats.hellos_resumed),
            ("table_reconciliations", "Reconciliations begun", stats.reconciliations),
            (
                "table_reconciliations_vain",
                "Reconciliations after which tables still differ",
                stats.reconciliations_vain,
            ),
            (
                "table_reconciliations_abandoned",
                "Reconciliations given up without answers",
                stats.reconciliations_abandoned,
            ),
            ("table_digests_unequal", "Digests of peers that disagreed", stats.digests_unequal),
            (
                "table_digests_unequal_once",
                "Digests of peers with a range that had been equal before",
                stats.digests_unequal_once,
            ),
            (
                "table_digests_clock_apart",
                "Digests of peers with a clock far from ours",
                stats.digests_clock_apart,
            ),
            ("table_items_given", "Entries given in reconciliations", stats.items_given),
            ("table_ended_early", "Conferences ended early, table full", stats.ended_early),
            ("table_dropped_minority", "Entries dropped without most of the mesh", stats.dropped_minority),
            ("table_restarts_in_place", "Pauses after which this node started anew", stats.restarts_in_place),
            ("table_peers_beyond_max", "Listed peers beyond the bound", stats.peers_beyond_max),
            ("table_claims_passed_on", "Claims of peers passed on to their home", stats.claims_passed_on),
            ("table_probe_rounds", "Rounds of probes of a shard begun", stats.rounds),
            ("table_verdicts_dead", "Rounds in which nobody reached the shard", stats.verdicts_dead),
            ("table_verdicts_kept", "Rounds in which somebody reached the shard", stats.verdicts_kept),
            ("table_claims_kept", "Claims answered: it stays, others reach its shard", stats.claims_kept),
            (
                "table_claims_parked_full",
                "Claims refused, too many wait for probes",
                stats.claims_parked_full,
            ),
            ("table_probes_answered", "Probes of shards made for peers", stats.probes_answered),
            (
                "table_probes_refused",
                "Probes of shards not made, too many for one peer",
                stats.probes_refused,
            ),
            ("table_probe_answers_late", "Outcomes of probes that came too late", stats.probe_answers_late),
            ("table_disputes", "Conferences with sessions here that were on another shard", stats.disputes),
            ("table_divergences", "Split brains decided by this node as their home", stats.verdicts),
            (
                "table_disputes_without_verdict",
                "Such conferences about which no home said anything",
                stats.disputes_without_verdict,
            ),
            ("table_disputes_full", "Such conferences beyond the bound", stats.disputes_full),
            ("table_hearings_full", "Split brains that this home had no place for", stats.hearings_full),
            ("table_leases_reported", "Leases reported to homes", stats.leases_reported),
            ("table_renewals_sent", "Renewals told to all as home", stats.renewals_sent),
            (
                "table_ends_answered",
                "Ends answered by a node that holds or uses the key",
                stats.held_ends_answered,
            ),
            ("table_stamps_far_ahead", "Stamps beyond what the clock follows", stats.stamps_far_ahead),
            ("table_dropped_full", "Peers' entries dropped, table full", stats.dropped_full),
            ("table_tombstones_full", "Ends without a tombstone, at the bound", stats.tombstones_full),
            ("table_claims_full", "Claims not taken, too many under way", stats.claims_full),
            ("table_waiters_full", "Requests that could not wait for a claim", stats.waiters_full),
            ("table_touches_dropped", "Uses dropped, driver busy", self.parts.table.touches_dropped()),
        ] {
            out.counter(name, help, value)?;
        }
        Ok(())
    }

    fn peers(&self, out: &mut Writer<'_>) -> Written {
        let each = |of: fn(&shardgate_peering::core::PeerView) -> u64| {
            self.mesh.peers.iter().map(move |peer| (peer.id.as_str(), of(&peer.view)))
        };
        let reconciled = each(|view| u64::from(view.link == LinkState::Reconciled));
        out.gauges(
            "peer_reconciled",
            "1 when what the peer knew has arrived and updates flow",
            "peer",
            reconciled,
        )?;
        out.gauges(
            "peer_in_agreement",
            "1 when the peer's table holds what this node's holds",
            "peer",
            each(|view| u64::from(view.agreement == Agreement::Agreed)),
        )?;
        let agreed = self.mesh.peers.iter();
        let agreed = agreed.filter_map(|peer| Some((peer.id.as_str(), peer.view.agreed_ms_ago? / 1_000)));
        out.gauges(
            "peer_agreed_seconds_ago",
            "Since the peer's table was last found to hold what this node's holds; missing when it never was",
            "peer",
            agreed,
        )?;
        out.gauges(
            "peer_ready",
            "1 when the peer says that it is ready",
            "peer",
            each(|view| u64::from(view.ready)),
        )?;
        out.gauges(
            "peer_behind",
            "Own updates the peer has not acknowledged",
            "peer",
            each(|view| view.behind),
        )?;
        out.gauges("peer_rtt_milliseconds", "Smoothed round trip", "peer", each(|view| view.rtt_ms))?;
        let ends = self.links.ends.iter().map(|(reason, number)| (*reason, *number));
        out.counters("peer_connection_ends", "Ended and refused connections", "reason", ends)?;
        out.counter("peer_connections", "Connections to peers that came up", self.links.connected)?;
        out.counter("peer_dials_failed", "Dials in vain", self.links.dials_failed)?;
        out.counter("peer_sent_bytes", "Frames written to peers", self.links.bytes_sent)?;
        out.counter("peer_received_bytes", "Frames read from peers", self.links.bytes_received)
    }

    /// In: for peers, to shards that this node reaches. Out: by peers, to shards that it does not reach.
    fn relays(&self, out: &mut Writer<'_>) -> Written {
        let relays = &self.links.relays;
        let each = |of: [u64; 2]| RelaySide::ALL.map(RelaySide::as_str).into_iter().zip(of);
        out.gauges("relay_streams", "Relayed streams open", "direction", each(relays.open))?;
        out.counters("relay_opened", "Relayed streams that came about", "direction", each(relays.opened))?;
        out.counters("relay_bytes", "On relayed streams, both ways", "direction", each(relays.bytes))?;
        let refused = relays.refused.iter().copied();
        out.counters("relay_refused", "Streams that peers were refused", "reason", refused)?;
        let failed = relays.failed.iter().copied();
        out.counters("relay_failed", "Streams that peers were asked for in vain", "reason", failed)?;
        out.counter(
            "requests_relayed",
            "Requests that went by a peer, or were to",
            self.totals.requests_relayed,
        )
    }
}
