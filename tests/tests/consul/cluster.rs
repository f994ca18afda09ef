//! Real Consul servers, each a datacenter of its own, on addresses of 127.61/16.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use shardgate_discovery::consul::{Agent, AgentAddress, AgentConfig, Check, Datacenter, Registration};

/// What a fresh server may take until it leads itself.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// Waits for a condition.
pub(crate) async fn within(limit: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}

/// The Consul that `tests/consul/get-consul` finds.
fn program() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("consul/get-consul");
    let found = Command::new(script).stderr(Stdio::inherit()).output().expect("get-consul runs");
    assert!(found.status.success(), "there is no Consul to test with");
    PathBuf::from(String::from_utf8(found.stdout).expect("a path").trim())
}

/// What an agent is to its datacenter.
#[derive(Clone, Copy)]
pub(crate) enum Role {
    /// The server, alone.
    Alone,
    /// One of three servers.
    OfThree,
    /// No server: it passes on what it is asked.
    Client,
}

impl Role {
    const fn config(self) -> &'static str {
        match self {
            Self::Alone => "server = true\nbootstrap_expect = 1",
            Self::OfThree => "server = true\nbootstrap_expect = 3",
            Self::Client => "server = false",
        }
    }
}

/// An agent, most often also the server that is alone in its datacenter.
pub(crate) struct Server {
    pub(crate) datacenter: Datacenter,
    pub(crate) ip: String,
    folder: tempfile::TempDir,
    role: Role,
    more: String,
    child: Option<Child>,
}

impl Server {
    /// Starts one; `more` is HCL.
    pub(crate) fn start(datacenter: &str, ip: &str, more: &str) -> Self {
        Self::start_as(Role::Alone, datacenter, ip, more)
    }

    /// Starts an agent of any role; `more` is HCL.
    pub(crate) fn start_as(role: Role, datacenter: &str, ip: &str, more: &str) -> Self {
        let mut server = Self {
            datacenter: Datacenter::parse(datacenter).unwrap(),
            ip: ip.to_owned(),
            folder: tempfile::tempdir().unwrap(),
            role,
            more: more.to_owned(),
            child: None,
        };
        server.begin();
        server
    }

    fn begin(&mut self) {
        let Self { datacenter, ip, folder, role, more, .. } = self;
        let role = role.config();
        let name = ip.replace('.', "-");
        let config = format!(
            "datacenter = \"{datacenter}\"\nnode_name = \"{datacenter}-{name}\"\n{role}\n\
             bind_addr = \"{ip}\"\nclient_addr = \"{ip}\"\nserf_wan = \"{ip}\"\nadvertise_addr_wan = \"{ip}\"\n\
             disable_host_node_id = true\ndisable_update_check = true\nlog_level = \"warn\"\n\
             performance {{ raft_multiplier = 1 }}\n{more}\n"
        );
        let path = folder.path().join("server.hcl");
        fs::write(&path, config).unwrap();
        // Whoever else has it would be asked in its place.
        let free = std::net::TcpListener::bind((ip.as_str(), 8500));
        free.unwrap_or_else(|error| panic!("{ip}:8500: {error}: are these tests running already?"));
        let log = fs::File::options().create(true).append(true).open(folder.path().join("log")).unwrap();
        let child = Command::new(program())
            .args(["agent", "-config-file"])
            .arg(path)
            .arg("-data-dir")
            .arg(folder.path().join("data"))
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .expect("Consul starts");
        self.child = Some(child);
    }

    /// Starts it again with what it had.
    pub(crate) fn start_again(&mut self) {
        self.begin();
    }

    /// Starts it again with what it had, and other HCL.
    pub(crate) fn start_again_with(&mut self, more: &str) {
        more.clone_into(&mut self.more);
        self.begin();
    }

    /// The process, while it runs.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Starts it again with nothing.
    pub(crate) fn start_empty(&mut self) {
        fs::remove_dir_all(self.folder.path().join("data")).unwrap();
        self.begin();
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Where it answers without TLS.
    pub(crate) fn http(&self) -> SocketAddr {
        format!("{}:8500", self.ip).parse().unwrap()
    }

    /// How it is reached.
    pub(crate) fn config(&self) -> AgentConfig {
        let address = AgentAddress::parse(&format!("{}:8500", self.ip)).unwrap();
        AgentConfig { address, ..AgentConfig::default() }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}:8500", self.ip)
    }

    pub(crate) fn agent(&self) -> Agent {
        Agent::new(self.config()).unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Waits until it takes keys, which needs a leader.
    pub(crate) async fn ready(&self) {
        self.ready_as(&self.agent()).await;
    }

    pub(crate) async fn ready_as(&self, agent: &Agent) {
        let began = Instant::now();
        loop {
            // Whoever else has its address may answer.
            let pid = self.child.as_ref().map(Child::id).unwrap();
            let alive =
                fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
            assert!(alive, "Consul has ended\n{}", self.log());
            let written = agent.set(&self.datacenter, "ready", "yes").await;
            let Err(error) = written else { return };
            assert!(began.elapsed() < STARTS_WITHIN, "{error}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A shard as Jitsi registers it.
    pub(crate) fn shard(&self, name: &str, id: u32) -> Registration {
        let meta = [
            ("environment", "test"),
            ("shard", name),
            ("shard_id", &id.to_string()),
            ("release_number", "1"),
            ("http_backend_port", "443"),
        ];
        Registration {
            name: "signal".to_owned(),
            id: format!("test-{name}"),
            tags: vec!["test".to_owned(), "release-1".to_owned(), format!("shard-{name}")],
            address: format!("127.61.9.{id}:5280").parse().unwrap(),
            wan: None,
            public_port: 443,
            meta: meta.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            check: Check::None,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Keys, without conditions.
pub(crate) trait Keys {
    async fn set(&self, datacenter: &Datacenter, key: &str, value: &str) -> Result<(), String>;
}

impl Keys for Agent {
    async fn set(&self, datacenter: &Datacenter, key: &str, value: &str) -> Result<(), String> {
        use shardgate_discovery::consul::Cas;
        self.write_key(datacenter, key, value, Cas::Any).await.map(drop).map_err(|error| error.to_string())
    }
}

/// Two datacenters that know each other.
pub(crate) async fn federated(third: u8) -> (Server, Server) {
    let (east_ip, west_ip) = (format!("127.61.{third}.1"), format!("127.61.{third}.2"));
    let join =
        |ip: &str| format!("retry_join_wan = [\"{ip}\"]\nretry_interval_wan = \"1s\"\nports {{ dns = -1 }}");
    let east = Server::start("test-east", &east_ip, &join(&west_ip));
    let west = Server::start("test-west", &west_ip, &join(&east_ip));
    for server in [&east, &west] {
        server.ready().await;
        let agent = server.agent();
        within(STARTS_WITHIN, "both know both", async || {
            agent.datacenters().await.is_ok_and(|list| list.len() == 2)
        })
        .await;
    }
    for (from, to) in [(&east, &west), (&west, &east)] {
        let agent = from.agent();
        within(STARTS_WITHIN, "each reaches the other", async || {
            agent.set(&to.datacenter, "ready", "yes").await.is_ok()
        })
        .await;
    }
    (east, west)
}
