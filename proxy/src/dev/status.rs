//! What `shardgate dev` shows while it runs: a picture of the mesh as plain data, and that picture as text. Pure; the terminal
//! is in [`super::terminal`].

use std::fmt::Write;
use std::time::Duration;

use super::link::Link;
use super::rooms::Counts;

/// Last events shown.
pub const EVENTS_SHOWN: usize = 10;

/// Everything that the screen shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevView {
    /// Since the mesh was started.
    pub uptime: Duration,
    /// The wire between the regions.
    pub link: Link,
    /// The nodes, in their order.
    pub nodes: Vec<NodeView>,
    /// The shards, in their order.
    pub shards: Vec<ShardView>,
    /// The last events, oldest first.
    pub events: Vec<String>,
    /// The file to edit.
    pub discovery_file: String,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Name.
    pub name: String,
    /// Region.
    pub region: String,
    /// Where people come in.
    pub url: String,
    /// The same over HTTPS, if it is taken.
    pub https_url: Option<String>,
    /// Ready, or why not.
    pub readiness: Result<(), String>,
    /// Peers it is connected with.
    pub peers_connected: usize,
    /// Peers that discovery lists.
    pub peers_listed: usize,
    /// Conferences in its table, by shard, in the order of the shards.
    pub conferences: Vec<u64>,
    /// Conferences in its table in all.
    pub entries: u64,
    /// Open tunnels.
    pub tunnels: u64,
    /// How often a peer has told it what it missed, since it was started: more of them means connections that do not last.
    pub resyncs: u64,
}

/// One shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardView {
    /// Name.
    pub name: String,
    /// Region.
    pub region: String,
    /// Release.
    pub release: String,
    /// Rooms and people; `None` while killed.
    pub counts: Option<Counts>,
}

/// The screen, as plain text. The first line never changes its place, so that redrawing does not flicker.
pub fn render(view: &DevView) -> String {
    let mut out = String::new();
    render_into(&mut out, view).ok();
    out
}

fn render_into(out: &mut String, view: &DevView) -> std::fmt::Result {
    let seconds = view.uptime.as_secs();
    let link = link_words(view.link);
    writeln!(out, "shardgate dev · up {}:{:02} · regions {link}", seconds / 60, seconds % 60)?;
    keys(out, view)?;
    writeln!(out)?;
    nodes(out, view)?;
    writeln!(out)?;
    shards(out, view)?;
    writeln!(out)?;
    try_next(out, view)?;
    writeln!(out)?;
    writeln!(out, " EVENTS, the last one first")?;
    for event in view.events.iter().rev().take(EVENTS_SHOWN) {
        writeln!(out, " {event}")?;
    }
    Ok(())
}

fn keys(out: &mut String, view: &DevView) -> std::fmt::Result {
    let cut = match view.link {
        Link::Whole => "cut the regions",
        Link::Cut => "heal the regions",
    };
    write!(out, "[c] {cut}")?;
    for (index, shard) in view.shards.iter().enumerate() {
        let verb = if shard.counts.is_some() { "kill" } else { "start" };
        write!(out, "  [{}] {verb} {}", index + 1, shard.name)?;
    }
    writeln!(out, "  [q] quit")
}

fn nodes(out: &mut String, view: &DevView) -> std::fmt::Result {
    let header: String = view.shards.iter().map(|shard| format!("{:>5}", shard.name)).collect();
    writeln!(out, " NODE REGION    URL                   PEERS TUNNELS TABLE{header}  STATE")?;
    for node in &view.nodes {
        let peers = format!("{}/{}", node.peers_connected, node.peers_listed);
        let by_shard: String = node.conferences.iter().map(|count| format!("{count:>5}")).collect();
        let state = match &node.readiness {
            Ok(()) => "ready".to_owned(),
            Err(reason) => format!("not ready: {reason}"),
        };
        writeln!(
            out,
            " {:<4} {:<9} {:<21} {peers:>5} {:>7} {:>5}{by_shard}  {state}",
            node.name, node.region, node.url, node.tunnels, node.entries
        )?;
    }
    Ok(())
}

fn shards(out: &mut String, view: &DevView) -> std::fmt::Result {
    writeln!(out, " SHARD REGION    RELEASE    ROOMS PEOPLE  STATE")?;
    for shard in &view.shards {
        let (rooms, people, state) = match shard.counts {
            Some(Counts { rooms, people }) => (rooms.to_string(), people.to_string(), "up"),
            None => ("-".to_owned(), "-".to_owned(), "KILLED"),
        };
        let ShardView { name, region, release, .. } = shard;
        writeln!(out, " {name:<5} {region:<9} {release:<10} {rooms:>5} {people:>6}  {state}")?;
    }
    Ok(())
}

fn try_next(out: &mut String, view: &DevView) -> std::fmt::Result {
    let url = |index: usize| view.nodes.get(index).map(|node| node.url.as_str()).unwrap_or_default();
    let (here, there) = (url(0), url(view.nodes.len().saturating_sub(1)));
    writeln!(out, " TRY THIS")?;
    writeln!(out, " - open {here}/hello and {there}/hello: one room; talk")?;
    let https_url = |node: Option<&NodeView>| node.and_then(|node| node.https_url.clone());
    if let (Some(here), Some(there)) = (https_url(view.nodes.first()), https_url(view.nodes.last())) {
        writeln!(out, " - the same over HTTP/2: {here}/hello and {there}/hello (the browser")?;
        writeln!(out, "   warns: the certificate was made for this run)")?;
    }
    writeln!(out, " - [c], then open /other through both: two rooms; [c] again: one within 5 s")?;
    writeln!(out, " - [1] or [2]: its people meet again elsewhere, others notice nothing")?;
    writeln!(out, " - live_release = \"release-2\" sends new rooms to s3, the others stay; it stands in")?;
    writeln!(out, "   {} (dev.log is beside it)", view.discovery_file)
}

/// One line for a log instead of a screen.
pub fn render_line(view: &DevView) -> String {
    let mut out = format!("status: regions {};", link_words(view.link));
    for node in &view.nodes {
        let ready = if node.readiness.is_ok() { "ready" } else { "NOT READY" };
        write!(
            out,
            " {} {ready} peers {}/{} table {} tunnels {};",
            node.name, node.peers_connected, node.peers_listed, node.entries, node.tunnels
        )
        .ok();
    }
    for shard in &view.shards {
        match shard.counts {
            Some(Counts { rooms, people }) => {
                write!(out, " {} {rooms} rooms {people} people;", shard.name).ok()
            }
            None => write!(out, " {} KILLED;", shard.name).ok(),
        };
    }
    out.truncate(out.trim_end_matches(';').len());
    out
}

fn link_words(link: Link) -> &'static str {
    match link {
        Link::Whole => "connected",
        Link::Cut => "CUT APART",
    }
}

/// What changed from one picture to the next, as events for people.
pub fn changes(before: &DevView, after: &DevView) -> Vec<String> {
    let mut events = Vec::new();
    for (old, new) in before.nodes.iter().zip(&after.nodes) {
        if old.peers_connected != new.peers_connected {
            let verb = if new.peers_connected < old.peers_connected { "lost" } else { "found" };
            let word = match new.peers_connected.abs_diff(old.peers_connected) {
                1 => "a peer".to_owned(),
                more => format!("{more} peers"),
            };
            events.push(format!(
                "{}: {verb} {word}, has {} of {}",
                new.name, new.peers_connected, new.peers_listed
            ));
        }
        match (&old.readiness, &new.readiness) {
            (Err(_), Ok(())) => events.push(format!("{}: ready", new.name)),
            (Ok(()), Err(reason)) => events.push(format!("{}: not ready: {reason}", new.name)),
            (Ok(()), Ok(())) | (Err(_), Err(_)) => {}
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, region: &str, port: u16) -> NodeView {
        NodeView {
            name: name.into(),
            region: region.into(),
            url: format!("http://127.0.0.1:{port}"),
            https_url: None,
            readiness: Ok(()),
            peers_connected: 3,
            peers_listed: 3,
            conferences: vec![7, 5, 0],
            entries: 12,
            tunnels: 2,
            resyncs: 3,
        }
    }

    fn view() -> DevView {
        let shard = |name: &str, release: &str, counts| ShardView {
            name: name.into(),
            region: "region-a".into(),
            release: release.into(),
            counts,
        };
        DevView {
            uptime: Duration::from_secs(65),
            link: Link::Whole,
            nodes: vec![node("a1", "region-a", 8101), node("b1", "region-b", 8103)],
            shards: vec![
                shard("s1", "release-1", Some(Counts { rooms: 7, people: 9 })),
                shard("s2", "release-1", None),
                shard("s3", "release-2", Some(Counts::default())),
            ],
            events: (0..12).map(|n| format!("event {n}")).collect(),
            discovery_file: "/tmp/x/discovery.toml".into(),
        }
    }

    #[test]
    fn the_screen() {
        let expected = "\
shardgate dev · up 1:05 · regions connected
[c] cut the regions  [1] kill s1  [2] start s2  [3] kill s3  [q] quit

 NODE REGION    URL                   PEERS TUNNELS TABLE   s1   s2   s3  STATE
 a1   region-a  http://127.0.0.1:8101   3/3       2    12    7    5    0  ready
 b1   region-b  http://127.0.0.1:8103   3/3       2    12    7    5    0  ready

 SHARD REGION    RELEASE    ROOMS PEOPLE  STATE
 s1    region-a  release-1      7      9  up
 s2    region-a  release-1      -      -  KILLED
 s3    region-a  release-2      0      0  up

 TRY THIS
 - open http://127.0.0.1:8101/hello and http://127.0.0.1:8103/hello: one room; talk
 - [c], then open /other through both: two rooms; [c] again: one within 5 s
 - [1] or [2]: its people meet again elsewhere, others notice nothing
 - live_release = \"release-2\" sends new rooms to s3, the others stay; it stands in
   /tmp/x/discovery.toml (dev.log is beside it)

 EVENTS, the last one first
 event 11
 event 10
 event 9
 event 8
 event 7
 event 6
 event 5
 event 4
 event 3
 event 2
";
        assert_eq!(render(&view()), expected);
    }

    #[test]
    fn https_is_shown_where_it_is_taken() {
        let mut view = view();
        assert!(!render(&view).contains("https"));
        for node in &mut view.nodes {
            node.https_url = Some(node.url.replacen("http://127.0.0.1:81", "https://127.0.0.1:82", 1));
        }
        let expected =
            " - the same over HTTP/2: https://127.0.0.1:8201/hello and https://127.0.0.1:8203/hello";
        assert!(render(&view).contains(expected));
    }

    #[test]
    fn one_line_for_logs() {
        let mut view = view();
        view.link = Link::Cut;
        view.nodes[1].readiness = Err("no peer reconciled".into());
        assert_eq!(
            render_line(&view),
            "status: regions CUT APART; a1 ready peers 3/3 table 12 tunnels 2; b1 NOT READY peers 3/3 table 12 tunnels 2; \
             s1 7 rooms 9 people; s2 KILLED; s3 0 rooms 0 people"
        );
    }

    #[test]
    fn changes_become_events() {
        let before = view();
        let mut after = view();
        after.nodes[0].peers_connected = 1;
        after.nodes[1].readiness = Err("draining".into());
        assert_eq!(changes(&before, &after), ["a1: lost 2 peers, has 1 of 3", "b1: not ready: draining"]);
        assert_eq!(changes(&before, &before), Vec::<String>::new());
    }
}
