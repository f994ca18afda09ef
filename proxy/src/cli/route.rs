//! `shardgate route`: where a request would go, without a node.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use http::header::HOST;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use shardgate_discovery::{FileError, RegionName, ShardName, Snapshot};

use super::{ConfigArgs, complain};
use crate::config::{ConfigErrors, load_decisive, process_environment};
use crate::explain::{Explanation, Site};
use crate::rule::{Rule, Stage};

/// Exit code when the question cannot be answered, as clap's for wrong usage. A request that is not routed is [`super::REFUSED`].
const CANNOT_TELL: u8 = 2;

#[derive(Debug, Subcommand)]
pub(super) enum RouteCommand {
    /// Explain one request: what it is read as, the rules that match in their order, who could take it, and what is decided.
    #[command(after_help = EXPLAIN_HELP)]
    Explain(Box<ExplainArgs>),
    /// List all rules in the order in which they apply.
    Rules,
}

const EXPLAIN_HELP: &str = "\
Examples:
  shardgate route explain https://meet.example.com/acme/standup --discovery discovery.toml
  shardgate route explain '/http-bind?room=standup' --config /etc/shardgate.toml --entry prod-s2
  shardgate route explain /standup --config /etc/shardgate.toml -H 'Referer: https://spam.org/'
  shardgate route explain /a,b --discovery discovery.toml --set routing.compat=haproxy --output line

It is the data plane's own code that decides, as if no shard had failed and none were full. \
Without --config the defaults count, and the region of the first shard unless --set node.region=REGION names one. \
Of a configuration only what decides is read (node.region, routing, pools, backend.balance_factor, discovery.file): \
the node's certificates are not needed.

Exit status: 0 it would go to a shard; 1 it would be refused, redirected or find no shard; 2 it cannot be told.";

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The request: a URL (http, https, ws, wss), or a target such as /acme/standup.
    #[arg(value_name = "URL", value_parser = asked)]
    url: Asked,
    /// A header of the request. Repeatable. A URL's host is the Host, unless one is given.
    #[arg(long, short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// The request's method.
    #[arg(long, value_name = "METHOD", default_value_t = Method::GET)]
    method: Method,
    /// The configuration (TOML). Default: every default.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    overrides: ConfigArgs,
    /// The discovery file: shards, releases, pins, bans. Default: the one that the configuration names.
    #[arg(long, value_name = "FILE")]
    discovery: Option<PathBuf>,
    /// As if the stick table had the conference on this shard.
    #[arg(long, value_name = "SHARD", value_parser = ShardName::parse)]
    entry: Option<ShardName>,
    /// How it is told: text for people, line for lists, json for scripts.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// How an explanation is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A table of the steps, and the decision.
    Text,
    /// The decision and the names of the rules, in one line.
    Line,
    /// One JSON document.
    Json,
}

/// A target as a client sends it, and its Host.
#[derive(Debug, Clone)]
struct Asked {
    target: Uri,
    host: Option<HeaderValue>,
}

#[derive(Debug, thiserror::Error)]
enum Unanswerable {
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    #[error("no discovery file is named: shards, pins and bans are not known")]
    NoDiscovery,
    #[error(transparent)]
    Discovery(#[from] FileError),
    #[error("the discovery file lists no shard, and no region is named")]
    NoRegion,
    #[error("the request cannot be made")]
    Request(#[from] http::Error),
    #[error("the explanation cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

impl Unanswerable {
    const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Config(_) => Some("ops/config/shardgate.example.toml documents every field"),
            Self::NoDiscovery => {
                Some("name it with --discovery FILE, or a configuration that does with --config FILE")
            }
            Self::Discovery(_) => Some("ops/config/discovery.example.toml documents every field"),
            Self::NoRegion => Some("name one with --set node.region=REGION"),
            Self::Request(_) | Self::Json(_) => None,
        }
    }
}

pub(super) fn run(command: &RouteCommand) -> ExitCode {
    let said = match command {
        RouteCommand::Explain(args) => explain(args),
        RouteCommand::Rules => {
            print(&rules());
            return ExitCode::SUCCESS;
        }
    };
    match said {
        Ok(explanation) if explanation.is_routed() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(super::REFUSED),
        Err(error) => {
            complain(&error, error.hint());
            ExitCode::from(CANNOT_TELL)
        }
    }
}

fn explain(args: &ExplainArgs) -> Result<Explanation, Unanswerable> {
    let config = load_decisive(args.config.as_deref(), process_environment(), &args.overrides.sets)?;
    let file = args.discovery.clone().or(config.discovery).ok_or(Unanswerable::NoDiscovery)?;
    let snapshot = Arc::new(shardgate_discovery::read_file(&file)?);
    let region = config.region.or_else(|| first_region(&snapshot)).ok_or(Unanswerable::NoRegion)?;
    let head = request(args)?;
    let site = Site { routing: config.routing, region, balance_percent: config.balance_percent, snapshot };
    let explanation = site.explain(&head, args.entry.as_ref());
    print(&match args.output {
        Output::Text => explanation.to_string(),
        Output::Line => format!("{}\n", explanation.line()),
        Output::Json => format!("{}\n", serde_json::to_string_pretty(&explanation)?),
    });
    Ok(explanation)
}

fn first_region(snapshot: &Snapshot) -> Option<RegionName> {
    snapshot.listed().first().map(|shard| shard.region.clone())
}

fn request(args: &ExplainArgs) -> Result<Parts, http::Error> {
    let mut request = Request::builder().method(args.method.clone()).uri(args.url.target.clone());
    if let Some(host) = args.url.host.as_ref().filter(|_| args.header.iter().all(|(name, _)| name != HOST)) {
        request = request.header(HOST, host);
    }
    for (name, value) in &args.header {
        request = request.header(name, value);
    }
    Ok(request.body(())?.into_parts().0)
}

/// A URL as a client asks for it: the target is path and query, the authority is the Host.
fn asked(text: &str) -> Result<Asked, String> {
    let uri: Uri = text.parse().map_err(|error| format!("{error}, expected a URL or a path"))?;
    let Some(scheme) = uri.scheme_str() else { return Ok(Asked { target: uri, host: None }) };
    if !["http", "https", "ws", "wss"].contains(&scheme) {
        return Err(format!("scheme {scheme}, expected http, https, ws or wss"));
    }
    let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    // A query right behind the authority: clients put the slash before it that is missing.
    let target = if target.starts_with('?') { format!("/{target}") } else { target.to_owned() };
    let host = uri.authority().map(|authority| {
        let authority = authority.as_str();
        authority.rsplit_once('@').map_or(authority, |(_, host)| host)
    });
    let host = host.map(HeaderValue::from_str).transpose().map_err(|error| error.to_string())?;
    Ok(Asked { target: target.parse().map_err(|error| format!("{error}"))?, host })
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("expected NAME: VALUE")?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|error| error.to_string())?;
    let value = HeaderValue::from_bytes(value.trim().as_bytes()).map_err(|error| error.to_string())?;
    Ok((name, value))
}

fn rules() -> String {
    let mut text = String::new();
    for stage in Stage::ALL {
        text.push_str(stage.title());
        text.push('\n');
        for rule in Rule::ALL.iter().filter(|rule| rule.stage() == *stage) {
            text.push_str(&format!("  {rule:18}  {}\n", rule.text()));
        }
    }
    text
}

/// Whoever closes the pipe has read enough.
fn print(text: &str) {
    drop(std::io::stdout().write_all(text.as_bytes()));
}
