//! `shardgatectl shard`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;
use shardgate_discovery::ShardState;
use shardgate_discovery::consul::Effect;
use shardgate_proto::admin::order_shard_request::Order;
use shardgate_proto::admin::{OrderShardRequest, OrderShardResponse, StatusRequest};

use super::changing::{Doubtful, Forcing, Writing};
use super::status::Shard;
use super::waiting::{Drained, Wait, until_empty};
use super::{CommandError, shard_states, show};
use crate::consul::ConsulOptions;
use crate::node::{AskError, Nodes};
use crate::render::{Output, json, table};

/// What to do with shards. Without --node, states are keys in Consul and hold for all nodes. With it, orders count on the nodes that are
/// named, as long as these run; the strictest of an order and what discovery says holds.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// All shards with their states; with --node as these nodes see them.
    List,
    /// New conferences may come; with --node: take back what was commanded there.
    Ready(Wanted),
    /// No new conferences; those that it has stay. With --wait until the last one of the whole mesh has ended.
    Drain {
        #[command(flatten)]
        wanted: Wanted,
        #[command(flatten)]
        wait: Wait,
    },
    /// No traffic at all.
    Maint(Wanted),
    /// Its share of new conferences, on the nodes that --node names.
    Weight {
        /// The shard's name.
        shard: String,
        /// 0 to 256, or "source" for the weight that discovery says.
        #[arg(value_parser = weight)]
        weight: Weight,
    },
}

/// Which shard, and how it is written to Consul.
#[derive(Debug, Args)]
pub(crate) struct Wanted {
    /// The shard's name; in Consul one that is not registered is refused.
    shard: String,
    /// All nodes, through Consul, where it outlives them: what is meant without --node, too.
    #[arg(long)]
    mesh: bool,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    forcing: Forcing,
}

/// A weight, or discovery's.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Weight {
    Of(u32),
    Source,
}

fn weight(text: &str) -> Result<Weight, String> {
    match (text, text.parse()) {
        ("source", _) => Ok(Weight::Source),
        (_, Ok(weight @ 0..=256)) => Ok(Weight::Of(weight)),
        _ => Err("expected 0 to 256, or \"source\"".to_owned()),
    }
}

#[derive(Debug, Serialize)]
struct Now<'n> {
    node: &'n str,
    shard: String,
    state: String,
    weight: u32,
}

pub(super) async fn run(
    nodes: &Nodes,
    options: &ConsulOptions,
    verb: Verb,
    output: Output,
) -> Result<ExitCode, CommandError> {
    let named = nodes.named();
    if named.is_some() && options.names_datacenters() {
        return Err(CommandError::Usage {
            what: "--datacenter is about Consul, --node is not".to_owned(),
            hint: "leave out the one or the other".to_owned(),
        });
    }
    let (wanted, state, waiting) = match verb {
        Verb::List => {
            return match named {
                Some(named) => Ok(list(nodes, &named, output).await?),
                None => shard_states::list(options, output).await,
            };
        }
        Verb::Weight { shard, weight } => {
            let named = named.ok_or_else(|| CommandError::Usage {
                what: "shard weight needs --node: weights are orders to nodes, Consul has none".to_owned(),
                hint:
                    "--node 127.0.0.1:8405, or --node unix:/run/shardgate/admin.sock; repeat it for several"
                        .to_owned(),
            })?;
            let order = match weight {
                Weight::Of(weight) => Order::Weight(weight),
                Weight::Source => Order::SourceWeight(true),
            };
            return Ok(command(nodes, &named, &shard, &order, output).await?);
        }
        Verb::Ready(wanted) => (wanted, ShardState::Ready, None),
        Verb::Drain { wanted, wait } => (wanted, ShardState::Drain, wait.wanted()),
        Verb::Maint(wanted) => (wanted, ShardState::Maint, None),
    };
    let Wanted { shard, mesh, writing, forcing } = wanted;
    if mesh && named.is_some() {
        return Err(CommandError::Usage {
            what: "--mesh is about all nodes, through Consul, and --node about some".to_owned(),
            hint: "leave out the one or the other".to_owned(),
        });
    }
    let (effect, doubtful) = (writing.effect(), forcing.doubtful());
    let drained = Drained::Shard(shard.clone());
    let Some(named) = named else {
        let consul = options.open()?;
        let done = shard_states::set(&consul, &shard, state, effect, doubtful, output).await?;
        return match waiting.filter(|_| done == ExitCode::SUCCESS) {
            Some(waiting) => until_empty(nodes, Some(&consul), &drained, waiting, output).await,
            None => Ok(done),
        };
    };
    if effect == Effect::DryRun || doubtful == Doubtful::Written {
        return Err(CommandError::Usage {
            what: "--dry-run and --force are about Consul, --node is not".to_owned(),
            hint: "leave out the one or the other".to_owned(),
        });
    }
    let order = Order::State(state.as_str().to_owned());
    let done = command(nodes, &named, &shard, &order, output).await?;
    match waiting {
        Some(waiting) => until_empty(nodes, None, &drained, waiting, output).await,
        None => Ok(done),
    }
}

pub(super) async fn command(
    nodes: &Nodes,
    named: &[&str],
    shard: &str,
    order: &Order,
    output: Output,
) -> Result<ExitCode, AskError> {
    for address in named {
        let mut node = nodes.connect(address).await?;
        let request = OrderShardRequest { shard: shard.to_owned(), order: Some(order.clone()) };
        let answer = node.client.order_shard(request).await.map_err(node.refused())?.into_inner();
        let OrderShardResponse { state, weight } = answer;
        match output {
            Output::Json => show(&json(&Now { node: address, shard: shard.to_owned(), state, weight })),
            Output::Table => show(&format!("{address}: {shard} is in {state}, weight {weight}\n")),
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(nodes: &Nodes, named: &[&str], output: Output) -> Result<ExitCode, AskError> {
    #[derive(Serialize)]
    struct Listed<'n> {
        node: &'n str,
        #[serde(flatten)]
        shard: Shard,
    }
    let mut rows = Vec::new();
    for address in named {
        let mut node = nodes.connect(address).await?;
        let status = node.client.status(StatusRequest {}).await.map_err(node.refused())?.into_inner();
        for shard in status.shards.into_iter().map(Shard::from) {
            match output {
                Output::Json => show(&json(&Listed { node: address, shard })),
                Output::Table => {
                    let mut row = vec![(*address).to_owned()];
                    row.extend(shard.cells());
                    rows.push(row);
                }
            }
        }
    }
    if output == Output::Table {
        let head: Vec<&str> = std::iter::once("NODE").chain(Shard::HEAD).collect();
        show(&table(&head, &rows));
    }
    Ok(ExitCode::SUCCESS)
}
