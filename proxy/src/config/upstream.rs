//! How servers are spoken to: the fields that `[backend]` and each of `[[pools]]` have.

use super::section::Section;
use super::value;
use super::write;
use rustls::pki_types::DnsName;
use std::fmt;
use std::path::{Path, PathBuf};

const CA: &str = "the path of a PEM file with CA certificates, such as \"/etc/shardgate/shards-ca.pem\"";
const CERT: &str =
    "the path of a PEM file with a certificate for this node, such as \"/etc/shardgate/node.pem\"";
const KEY: &str = "the path of a PEM file with its key, such as \"/etc/shardgate/node.key\"";
const SNI: &str = "a host name, such as \"shard.example.com\"";

/// What the servers speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http,
    /// HTTP/1.1 over TLS.
    Https,
}

impl UpstreamProtocol {
    const WORDS: &[(&str, Self)] = &[("http", Self::Http), ("https", Self::Https)];
}

/// Whether a server's certificate has to be valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// By its CA, its time and its name.
    #[default]
    On,
    /// Whoever answers is believed, as HAProxy's `verify none`.
    Off,
}

impl Verify {
    const WORDS: &[(&str, Self)] = &[("on", Self::On), ("off", Self::Off)];
}

/// Whether servers are told who the client is before anything else (HAProxy's `send-proxy-v2`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SendProxy {
    /// They are not.
    #[default]
    Off,
    /// By a PROXY header of version 2.
    V2,
}

impl SendProxy {
    const WORDS: &[(&str, Self)] = &[("off", Self::Off), ("v2", Self::V2)];
}

/// How servers are spoken to. Files are read when the node starts, not here: where a request goes can be asked without them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UpstreamConfig {
    /// Default http: shards stand in a network of their own.
    pub protocol: UpstreamProtocol,
    /// Default on.
    pub verify: Verify,
    /// Whose certificates are valid. Default: the CAs that the system trusts.
    pub ca: Option<PathBuf>,
    /// What name is asked for (SNI) and has to stand in the certificate. Default: the request's host, if it is a name.
    pub sni: Option<String>,
    /// What this node shows to servers that want a certificate. Default: nothing.
    pub client_cert: Option<PathBuf>,
    /// Its key. Default: the certificate's file holds it.
    pub client_key: Option<PathBuf>,
    /// Default off: a server that does not expect a header takes it for a broken request.
    pub send_proxy: SendProxy,
}

impl UpstreamConfig {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let default = Self::default();
        let protocol = section.get("protocol", value::word(UpstreamProtocol::WORDS));
        let verify = section.get("verify", value::word(Verify::WORDS));
        let config = Self {
            protocol: protocol.unwrap_or(default.protocol),
            verify: verify.unwrap_or(default.verify),
            ca: path(section, "ca", CA),
            sni: section.get("sni", value::text(SNI, name)),
            client_cert: path(section, "client_cert", CERT),
            client_key: path(section, "client_key", KEY),
            send_proxy: section
                .get("send_proxy", value::word(SendProxy::WORDS))
                .unwrap_or(default.send_proxy),
        };
        let only_tls = [
            ("ca", config.ca.is_some()),
            ("sni", config.sni.is_some()),
            ("client_cert", config.client_cert.is_some()),
            ("client_key", config.client_key.is_some()),
        ];
        for (name, _) in only_tls.into_iter().filter(|(_, given)| *given) {
            if config.protocol == UpstreamProtocol::Http {
                section.refuse(name, &"", "nothing where protocol is not \"https\"".to_owned());
            }
        }
        if config.client_key.is_some() && config.client_cert.is_none() {
            section.refuse("client_key", &"", "nothing without client_cert".to_owned());
        }
        config
    }
}

fn path(section: &mut Section<'_>, name: &'static str, expected: &str) -> Option<PathBuf> {
    let text = value::text(expected, |text| (!text.is_empty()).then(|| text.to_owned()));
    let text = section.get(name, text)?;
    Some(section.resolve(name, &text))
}

fn name(text: &str) -> Option<String> {
    DnsName::try_from(text).is_ok().then(|| text.to_ascii_lowercase())
}

fn word<T: PartialEq + Copy>(words: &[(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, other)| *other == value).map_or("", |(word, _)| *word)
}

impl fmt::Display for UpstreamConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = |f: &mut fmt::Formatter<'_>, name: &str, path: Option<&Path>| match path {
            Some(path) => writeln!(f, "{name} = {}", write::path(path)),
            None => Ok(()),
        };
        writeln!(f, "protocol = {}", write::text(word(UpstreamProtocol::WORDS, self.protocol)))?;
        writeln!(f, "verify = {}", write::text(word(Verify::WORDS, self.verify)))?;
        path(f, "ca", self.ca.as_deref())?;
        if let Some(sni) = &self.sni {
            writeln!(f, "sni = {}", write::text(sni))?;
        }
        path(f, "client_cert", self.client_cert.as_deref())?;
        path(f, "client_key", self.client_key.as_deref())?;
        writeln!(f, "send_proxy = {}", write::text(word(SendProxy::WORDS, self.send_proxy)))
    }
}
