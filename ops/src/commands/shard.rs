//! `shardgatectl shard`.

use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;
use shardgate_proto::admin::order_shard_request::Order;
use shardgate_proto::admin::{OrderShardRequest, OrderShardResponse, StatusRequest};

use super::show;
use super::status::Shard;
use crate::node::{AskError, Nodes};
use crate::render::{Output, json, table};

/// What to do with shards. Orders count on the nodes that are named, as long as these run; the strictest of an order and what discovery
/// says holds.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// All shards with state and weight, and what is commanded here.
    List,
    /// Take back what was commanded: the state that discovery says.
    Ready {
        /// The shard's name.
        shard: String,
    },
    /// No new conferences; those that it has stay.
    Drain {
        /// The shard's name.
        shard: String,
    },
    /// No traffic at all.
    Maint {
        /// The shard's name.
        shard: String,
    },
    /// Its share of new conferences.
    Weight {
        /// The shard's name.
        shard: String,
        /// 0 to 256, or "source" for the weight that discovery says.
        #[arg(value_parser = weight)]
        weight: Weight,
    },
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

pub(super) async fn run(nodes: &Nodes, verb: Verb, output: Output) -> Result<ExitCode, AskError> {
    let state = |word: &str| Order::State(word.to_owned());
    let (shard, order) = match verb {
        Verb::List => return list(nodes, output).await,
        Verb::Ready { shard } => (shard, state("ready")),
        Verb::Drain { shard } => (shard, state("drain")),
        Verb::Maint { shard } => (shard, state("maint")),
        Verb::Weight { shard, weight: Weight::Of(weight) } => (shard, Order::Weight(weight)),
        Verb::Weight { shard, weight: Weight::Source } => (shard, Order::SourceWeight(true)),
    };
    for address in nodes.addresses() {
        let mut node = nodes.connect(address).await?;
        let request = OrderShardRequest { shard: shard.clone(), order: Some(order.clone()) };
        let answer = node.client.order_shard(request).await.map_err(node.refused())?.into_inner();
        let OrderShardResponse { state, weight } = answer;
        match output {
            Output::Json => show(&json(&Now { node: address, shard: shard.clone(), state, weight })),
            Output::Table => show(&format!("{address}: {shard} is in {state}, weight {weight}\n")),
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(nodes: &Nodes, output: Output) -> Result<ExitCode, AskError> {
    #[derive(Serialize)]
    struct Listed<'n> {
        node: &'n str,
        #[serde(flatten)]
        shard: Shard,
    }
    let mut rows = Vec::new();
    for address in nodes.addresses() {
        let mut node = nodes.connect(address).await?;
        let status = node.client.status(StatusRequest {}).await.map_err(node.refused())?.into_inner();
        for shard in status.shards.into_iter().map(Shard::from) {
            match output {
                Output::Json => show(&json(&Listed { node: address, shard })),
                Output::Table => {
                    let mut row = vec![address.clone()];
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
