//! `[mesh]`: the other nodes.

use super::section::Section;
use super::units::DurationText;
use super::value;
use super::write;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// PEM files are small; a larger one is a mistake.
const PEM_BYTES_MAX: usize = 1 << 20;
const PEM: &str = "the path of a PEM file, as `shardgate pki` writes it";

/// How this node meets its peers. Its certificates have no default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshConfig {
    /// Address for QUIC (UDP). Default `0.0.0.0:7000`.
    pub listen: SocketAddr,
    /// The mesh CA's certificate.
    pub ca: PathBuf,
    /// This node's certificate; it names the node's id and its environment.
    pub cert: PathBuf,
    /// The key of that certificate.
    pub key: PathBuf,
    /// How often each peer hears of this node. Default 1 s: agreement is told within two.
    pub heartbeat: Duration,
    /// Silence after which a peer is lost. Default 10 s: a stall of some seconds is no cut.
    pub idle_timeout: Duration,
    /// The least time that a decision waits for its home. Default 300 ms, above the round trip between most regions.
    pub claim_budget_min: Duration,
    /// The most. Default 1 s: with two homes to ask it stays inside the client's 5 s.
    pub claim_budget_max: Duration,
}

impl MeshConfig {
    /// The defaults, with these certificates.
    #[must_use]
    pub fn new(ca: PathBuf, cert: PathBuf, key: PathBuf) -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 7000),
            ca,
            cert,
            key,
            heartbeat: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(10),
            claim_budget_min: Duration::from_millis(300),
            claim_budget_max: Duration::from_secs(1),
        }
    }

    pub(super) fn read(mut section: Section<'_>) -> Option<Self> {
        let ca = pem(&mut section, "ca");
        let cert = pem(&mut section, "cert");
        let key = pem(&mut section, "key");
        let default = Self::new(PathBuf::new(), PathBuf::new(), PathBuf::new());
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        let budget = || value::duration(ms(10)..=s(4));
        let listen = section.get("listen", value::listen_address).unwrap_or(default.listen);
        let heartbeat =
            section.get("heartbeat", value::duration(ms(50)..=s(10))).unwrap_or(default.heartbeat);
        let idle_timeout =
            section.get("idle_timeout", value::duration(ms(200)..=s(120))).unwrap_or(default.idle_timeout);
        let claim_budget_min = section.get("claim_budget_min", budget()).unwrap_or(default.claim_budget_min);
        let claim_budget_max = section.get("claim_budget_max", budget()).unwrap_or(default.claim_budget_max);
        if idle_timeout < heartbeat * 3 {
            let least = DurationText(heartbeat * 3);
            let expected = format!(
                "at least {least}, three times mesh.heartbeat, so that one lost packet is no lost peer"
            );
            section.refuse("idle_timeout", &DurationText(idle_timeout), expected);
        }
        if claim_budget_min > claim_budget_max {
            let most = DurationText(claim_budget_max);
            let expected = format!("at most mesh.claim_budget_max, {most}");
            section.refuse("claim_budget_min", &DurationText(claim_budget_min), expected);
        }
        section.finish();
        let (ca, cert, key) = (ca?, cert?, key?);
        Some(Self { listen, ca, cert, key, heartbeat, idle_timeout, claim_budget_min, claim_budget_max })
    }
}

/// A PEM file has to be readable now: `check` is to say what `serve` would trip over.
pub(super) fn pem(section: &mut Section<'_>, name: &'static str) -> Option<PathBuf> {
    let given =
        section.require(name, PEM, value::text(PEM, |text| (!text.is_empty()).then(|| text.to_owned())))?;
    let path = section.resolve(name, &given);
    readable(&path).map_err(|expected| section.refuse(name, &given, expected)).ok().map(|()| path)
}

fn readable(path: &Path) -> Result<(), String> {
    value::read_file(path, PEM_BYTES_MAX).map(drop)
}

impl fmt::Display for MeshConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[mesh]")?;
        writeln!(f, "listen = \"{}\"", self.listen)?;
        writeln!(f, "ca = {}", write::path(&self.ca))?;
        writeln!(f, "cert = {}", write::path(&self.cert))?;
        writeln!(f, "key = {}", write::path(&self.key))?;
        writeln!(f, "heartbeat = {}", write::duration(self.heartbeat))?;
        writeln!(f, "idle_timeout = {}", write::duration(self.idle_timeout))?;
        writeln!(f, "claim_budget_min = {}", write::duration(self.claim_budget_min))?;
        writeln!(f, "claim_budget_max = {}", write::duration(self.claim_budget_max))
    }
}
