//! `shardgate check`: what would run, or everything that is wrong with it.

use std::process::ExitCode;

use super::{CheckArgs, refuse};
use crate::Manners;
use crate::config::{DiscoveryConfig, load, process_environment};
use crate::tls::ServerTls;

#[expect(clippy::print_stdout, reason = "its output is what was asked for")]
pub(super) fn run(args: &CheckArgs) -> ExitCode {
    let config = match load(&args.config, process_environment(), &args.overrides.sets) {
        Ok(config) => config,
        Err(errors) => {
            return refuse(&errors, Some("ops/config/shardgate.example.toml documents every field"));
        }
    };
    print!("{config}");
    println!();
    match config.tls.as_ref().map(ServerTls::load).transpose() {
        Ok(tls) => {
            for certificate in tls.iter().flat_map(ServerTls::expiries) {
                let name = certificate.name.as_deref().unwrap_or("no name");
                println!("# certificate: {} for {name}", certificate.path.display());
            }
            for warning in tls.iter().flat_map(ServerTls::warnings) {
                println!("# warning: {warning}");
            }
        }
        Err(errors) => return refuse(&errors, None),
    }
    let pools = config.routing.pools.iter().map(|pool| &pool.upstream);
    if let Err(error) = Manners::load(&config.backend.upstream, pools) {
        return refuse(&error, None);
    }
    let discovery = match &config.discovery {
        DiscoveryConfig::File(discovery) => discovery,
        DiscoveryConfig::Consul(consul) => {
            return match crate::node::consul_agent(&config.node, consul) {
                Ok(agent) => {
                    println!("# discovery: Consul at {}, which is not asked here", agent.address());
                    ExitCode::SUCCESS
                }
                Err(error) => refuse(&error, None),
            };
        }
    };
    match shardgate_discovery::read_file(&discovery.file) {
        Ok(snapshot) => {
            let live = snapshot.live_release().map_or("none", |release| release.as_str());
            let (shards, peers, pins) =
                (snapshot.shards().len(), snapshot.peers().len(), snapshot.pins().count());
            println!("# discovery: {shards} shards, {peers} peers, live release {live}, {pins} pins");
            for warning in snapshot.warnings() {
                println!("# warning: {warning}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => refuse(&error, Some("ops/config/discovery.example.toml documents every field")),
    }
}
