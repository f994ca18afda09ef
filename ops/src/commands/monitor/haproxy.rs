//! Tables of HAProxies, while a fleet is mixed: `show table` and `show stat`
//! (<https://docs.haproxy.org/3.0/management.html#9.3>), of a stats socket or of files. Servers are told apart by their addresses and names, never
//! by their ids, which every HAProxy gives as it likes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::rows::Row;

/// How long a HAProxy may be silent in the middle of an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// No line of either answer is longer; a key has 1,024 bytes at most.
const LINE_MAX: usize = 64 * 1024;

/// Where a HAProxy's table is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HaProxy {
    /// Its stats socket, in the file system.
    Unix(PathBuf),
    /// Its stats socket, at HOST:PORT.
    Tcp(String),
    /// What it said before: `show table NAME` and `show stat`.
    Files { table: PathBuf, stat: PathBuf },
}

impl FromStr for HaProxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || {
            format!(
                "{text:?} is not valid, expected unix:PATH or HOST:PORT of its stats socket, or files:TABLE,STAT with what it said to \"show table NAME\" and \"show stat\""
            )
        };
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        if let Some(files) = text.strip_prefix("files:") {
            let (table, stat) = files.split_once(',').ok_or_else(expected)?;
            return Ok(Self::Files { table: table.into(), stat: stat.into() });
        }
        let port = text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        port.map(|_| Self::Tcp(text.to_owned())).ok_or_else(expected)
    }
}

impl HaProxy {
    /// What its table is called.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Unix(path) => format!("haproxy {}", path.display()),
            Self::Tcp(address) => format!("haproxy {address}"),
            Self::Files { table, .. } => format!("haproxy {}", table.display()),
        }
    }

    /// Whether it can be told to change an entry.
    pub(super) const fn takes_orders(&self) -> bool {
        !matches!(self, Self::Files { .. })
    }

    /// Its servers, and the rows of its table.
    pub(super) async fn read(&self, table: &str, names: &mut Names) -> Result<(Servers, Vec<Row>), String> {
        let servers = Servers::read(&mut self.lines("show stat", Said::Stat).await?, names).await?;
        let rows =
            rows(&mut self.lines(&format!("show table {table}"), Said::Table).await?, &servers).await?;
        Ok((servers, rows))
    }

    /// Puts a key on a server. HAProxy says nothing when it is done.
    pub(super) async fn set(&self, table: &str, key: &str, server: u32) -> Result<(), String> {
        if key.bytes().any(|byte| byte.is_ascii_whitespace() || matches!(byte, b';' | b'\\' | b'"' | b'\'')) {
            return Err(format!("the key {key:?} cannot be said to a HAProxy"));
        }
        let order = format!("set table {table} key {key} data.server_id {server}");
        let mut lines = self.lines(&order, Said::Table).await?;
        while let Some(line) = lines.next().await? {
            if !line.trim().is_empty() {
                return Err(line);
            }
        }
        Ok(())
    }

    async fn lines(&self, order: &str, said: Said) -> Result<Lines, String> {
        let told = |error: std::io::Error| error.to_string();
        match self {
            Self::Unix(path) => ask(UnixStream::connect(path).await.map_err(told)?, order).await,
            Self::Tcp(address) => {
                let connected = timeout(PATIENCE, TcpStream::connect(address)).await;
                ask(
                    connected.map_err(|_| "it does not accept a connection".to_owned())?.map_err(told)?,
                    order,
                )
                .await
            }
            Self::Files { table, stat } => {
                let path = if said == Said::Stat { stat } else { table };
                let file = tokio::fs::File::open(path).await;
                let file = file.map_err(|error| format!("{}: {error}", path.display()))?;
                Ok(Lines { from: Box::new(BufReader::new(file)), number: 0 })
            }
        }
    }
}

/// Which of two files is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Table,
    Stat,
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    order: &str,
) -> Result<Lines, String> {
    let mut stream = BufReader::new(stream);
    let told = |error: std::io::Error| error.to_string();
    stream.write_all(format!("{order}\n").as_bytes()).await.map_err(told)?;
    stream.flush().await.map_err(told)?;
    Ok(Lines { from: Box::new(stream), number: 0 })
}

/// An answer, line by line.
struct Lines {
    from: Box<dyn AsyncBufRead + Send + Unpin>,
    number: usize,
}

impl Lines {
    async fn next(&mut self) -> Result<Option<String>, String> {
        self.number += 1;
        let mut line = Vec::new();
        let reading = async {
            loop {
                let part = self.from.fill_buf().await?;
                if part.is_empty() {
                    return Ok(());
                }
                let end = part.iter().position(|byte| *byte == b'\n');
                line.extend_from_slice(&part[..end.unwrap_or(part.len())]);
                let taken = end.map_or(part.len(), |end| end + 1);
                self.from.consume(taken);
                if end.is_some() || line.len() > LINE_MAX {
                    // An empty line is none that ends the answer.
                    line.push(b'\n');
                    return Ok(());
                }
            }
        };
        let read: Result<Result<(), std::io::Error>, _> = timeout(PATIENCE, reading).await;
        read.map_err(|_| "it has stopped in the middle of its answer".to_owned())?
            .map_err(|error| error.to_string())?;
        if line.is_empty() {
            return Ok(None);
        }
        if line.len() > LINE_MAX {
            return Err(format!("line {} has more than {LINE_MAX} bytes", self.number));
        }
        let text = String::from_utf8(line).map_err(|_| format!("line {} is not UTF-8", self.number))?;
        Ok(Some(text.trim_end().to_owned()))
    }
}

/// Names of shards by their addresses: what a node calls a shard it is called here, whatever a HAProxy calls its server.
#[derive(Debug, Default)]
pub(super) struct Names {
    by_address: HashMap<String, String>,
    known: std::collections::BTreeSet<String>,
}

impl Names {
    /// A node's word.
    pub(super) fn know(&mut self, shard: &str, address: &str) {
        self.known.insert(shard.to_owned());
        self.by_address.entry(address.to_owned()).or_insert_with(|| shard.to_owned());
    }

    /// What a HAProxy's server is: the shard at its address, else the one of its name, with or without the release that Jitsi's templates put
    /// before it (`3629-prod-us-phoenix-1-s1`).
    fn of(&mut self, server: &str, address: &str) -> String {
        if let Some(shard) = self.by_address.get(address) {
            return shard.clone();
        }
        let plain = match server.split_once('-') {
            Some((release, shard))
                if !release.is_empty()
                    && release.bytes().all(|byte| byte.is_ascii_digit())
                    && !self.known.contains(server) =>
            {
                shard
            }
            Some(_) | None => server,
        };
        if !address.is_empty() {
            self.by_address.insert(address.to_owned(), plain.to_owned());
        }
        plain.to_owned()
    }
}

/// A HAProxy's servers, by their ids.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Servers {
    shards: HashMap<u32, String>,
}

impl Servers {
    async fn read(lines: &mut Lines, names: &mut Names) -> Result<Self, String> {
        let head = lines.next().await?.unwrap_or_default();
        let columns: Vec<&str> = head.trim_start_matches("# ").split(',').collect();
        let column = |name: &str| columns.iter().position(|column| *column == name);
        let (Some(name), Some(id), Some(kind)) = (column("svname"), column("sid"), column("type")) else {
            let head: String = head.chars().take(60).collect();
            return Err(format!(
                "show stat: {head:?} is not valid, expected a CSV head with svname, sid and type"
            ));
        };
        let address = column("addr");
        let mut shards = HashMap::new();
        while let Some(line) = lines.next().await? {
            let cells: Vec<&str> = line.split(',').collect();
            // Type 2 are servers; the other rows are frontends, backends and sockets.
            if cells.get(kind) != Some(&"2") {
                continue;
            }
            let (Some(name), Some(id)) = (cells.get(name), cells.get(id).and_then(|id| id.parse().ok()))
            else {
                return Err(format!("show stat: line {} has no svname and sid", lines.number));
            };
            let address = address.and_then(|at| cells.get(at)).copied().unwrap_or_default();
            // A shard is a server of several backends, with the same id in Jitsi's templates.
            shards.entry(id).or_insert_with(|| names.of(name, address));
        }
        Ok(Self { shards })
    }

    /// The id by which a shard is named to this HAProxy.
    pub(super) fn id_of(&self, shard: &str) -> Option<u32> {
        self.shards.iter().filter(|(_, name)| *name == shard).map(|(id, _)| *id).min()
    }
}

/// The rows of `show table`: `0x55..: key=foo use=0 exp=299000 shard=0 server_id=11 server_key=..`.
async fn rows(lines: &mut Lines, servers: &Servers) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    let head = lines.next().await?.unwrap_or_default();
    if !head.starts_with("# table:") {
        let head: String = head.chars().take(60).collect();
        return Err(format!(
            "show table: {head:?} is not valid, expected \"# table: NAME, ...\": is there a table of this name?"
        ));
    }
    while let Some(line) = lines.next().await? {
        if line.is_empty() {
            continue;
        }
        let wrong = |what: &str| {
            format!(
                "show table: line {} {what}: {:?}",
                lines.number,
                line.chars().take(80).collect::<String>()
            )
        };
        let rest = line.split_once(": key=").map(|(_, rest)| rest).ok_or_else(|| wrong("has no key"))?;
        // A key may hold anything but what follows it in every row.
        let (key, rest) = rest.split_once(" use=").ok_or_else(|| wrong("has no use"))?;
        let field = |name: &str| rest.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        let left = field("exp").and_then(|ms| ms.parse().ok()).ok_or_else(|| wrong("has no exp"))?;
        // Without a server the entry is of something else that the table counts.
        let Some(id) = field("server_id").and_then(|id| id.parse::<u32>().ok()).filter(|id| *id != 0) else {
            continue;
        };
        let shard = servers.shards.get(&id).cloned().unwrap_or_else(|| format!("(server id {id})"));
        rows.push(Row::of_haproxy(key.to_owned(), shard, left).map_err(|why| wrong(&why))?);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As HAProxy 3.2 says it; columns that nothing is read from are left out.
    const STAT: &str = "# pxname,svname,scur,type,sid,addr,\nweb,FRONTEND,0,0,0,,\nnodes,3629-s1,0,2,11,10.0.0.1:443,\nnodes,3629-other,0,2,12,10.0.0.2:443,\n\
        nodes,BACKEND,0,1,0,,\nall,3629-s1,0,2,11,10.0.0.1:443,\nnodes,30-s3,0,2,13,,\n\n";
    const TABLE: &str = "# table: nodes, type: string, size:1000, used:4\n\
        0x7f494c0bd950: key=acme/bar use=0 exp=300000 shard=0 server_id=12 server_key=-\n\
        0x7f494c0bd5d0: key=a b use=1 exp=9 shard=0 server_id=99 server_key=-\n\
        0x7f494c0bd5d1: key=counted use=1 exp=9 shard=0 gpc0=1\n\
        0x7f494c0bd870: key=foo use=0 exp=299999 shard=0 server_id=11 server_key=-\n\n";

    fn lines(text: &str) -> Lines {
        let text = text.to_owned().into_bytes();
        Lines { from: Box::new(BufReader::new(std::io::Cursor::new(text))), number: 0 }
    }

    async fn read(stat: &str, table: &str) -> Result<Vec<String>, String> {
        let mut names = Names::default();
        names.know("mesh-s2", "10.0.0.2:443");
        names.know("30-s3", "10.0.0.3:443");
        let servers = Servers::read(&mut lines(stat), &mut names).await?;
        let rows = rows(&mut lines(table), &servers).await?;
        let said = rows
            .iter()
            .map(|row| format!("{} {} {}", row.key, row.shard.as_deref().unwrap_or("-"), row.remaining_ms));
        Ok(said.collect())
    }

    #[tokio::test]
    async fn servers_are_known_by_address_then_name() {
        let rows = read(STAT, TABLE).await.unwrap();
        assert_eq!(rows, ["acme/bar mesh-s2 300000", "a b (server id 99) 9", "foo s1 299999"]);
        let mut names = Names::default();
        names.know("30-s3", "10.0.0.3:443");
        let servers = Servers::read(&mut lines(STAT), &mut names).await.unwrap();
        assert_eq!(
            [servers.id_of("30-s3"), servers.id_of("other"), servers.id_of("s9")],
            [Some(13), Some(12), None]
        );
    }

    #[tokio::test]
    async fn what_is_no_answer_is_told() {
        for (stat, table, why) in [
            ("", TABLE, "show stat: \"\" is not valid"),
            ("a,b\n", TABLE, "show stat: \"a,b\" is not valid"),
            ("# svname,sid,type\ns1,x,2\n", TABLE, "show stat: line 2 has no svname and sid"),
            (STAT, "Unknown table\n", "show table: \"Unknown table\" is not valid"),
            (STAT, "# table: n\nnonsense\n", "show table: line 2 has no key: \"nonsense\""),
            (STAT, "# table: n\n0x1: key=a\n", "show table: line 2 has no use"),
            (STAT, "# table: n\n0x1: key=a use=0\n", "show table: line 2 has no exp"),
            (STAT, "# table: n\n0x1: key= use=0 exp=1 server_id=11\n", "show table: line 2 the key"),
        ] {
            let said = read(stat, table).await.unwrap_err();
            assert!(said.starts_with(why), "{said}");
        }
        let long = "x".repeat(LINE_MAX + 2);
        assert_eq!(read(&long, TABLE).await.unwrap_err(), "line 1 has more than 65536 bytes");
    }

    proptest! {
        #[test]
        fn whatever_a_haproxy_says_is_rows_or_an_error(in_stat: bool, at in 0..600_usize, cut in 0..80_usize, put in "(\\PC|\n){0,40}") {
            let damaged = |text: &str| {
                let at = text.floor_char_boundary(at);
                let until = text.floor_char_boundary(at + cut);
                format!("{}{put}{}", &text[..at], &text[until..])
            };
            let (stat, table) = (damaged(STAT), damaged(TABLE));
            let (stat, table) = if in_stat { (stat.as_str(), TABLE) } else { (STAT, table.as_str()) };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            match runtime.block_on(read(stat, table)) {
                Ok(rows) => prop_assert!(rows.len() <= table.lines().count()),
                Err(why) => prop_assert!(why.starts_with("show ") && why.len() < 1_000, "{}", why),
            }
        }
    }

    #[test]
    fn where_it_is_read() {
        assert_eq!("unix:/run/h.sock".parse(), Ok(HaProxy::Unix("/run/h.sock".into())));
        assert_eq!("h1:9999".parse(), Ok(HaProxy::Tcp("h1:9999".to_owned())));
        let files = HaProxy::Files { table: "a".into(), stat: "b".into() };
        assert_eq!("files:a,b".parse(), Ok(files));
        for text in ["", "h1", "h1:x", "files:a"] {
            assert!(text.parse::<HaProxy>().unwrap_err().contains("is not valid, expected"), "{text}");
        }
    }

    #[tokio::test]
    async fn what_a_command_line_would_take_apart_is_not_said() {
        let haproxy = HaProxy::Unix("/nowhere".into());
        let why = haproxy.set("nodes", "a;shutdown sessions server b/s", 1).await.unwrap_err();
        assert!(why.contains("cannot be said"), "{why}");
    }
}
