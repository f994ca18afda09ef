//! `[[listeners]]`: addresses that clients connect to, each with what it speaks. What all of them share is in `[frontend]`, whose `listen`
//! is the short form for plain HTTP.

use super::section::Section;
use super::value;
use super::write;
use crate::worker::ForwardedProto;
use std::fmt;
use std::net::SocketAddr;

const NAME: &str = "a text such as \"https\", 1 to 40 of A-Z a-z 0-9 . _ -, but not http-1 and the like, which frontend.listen takes";
const CONNECTIONS_MAX: usize = 2_000_000;

/// What a listener is called in the log and in metrics.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ListenerName(String);

impl ListenerName {
    fn parse(text: &str) -> Option<Self> {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let short_form = |text: &str| {
            let number = text.strip_prefix("http-");
            number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let valid = (1..=40).contains(&text.len()) && text.bytes().all(valid) && !short_form(text);
        valid.then(|| Self(text.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ListenerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Declares a choice between words.
macro_rules! words {
    ($(#[$doc:meta])* $type:ident { $($(#[$word_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $type { $($(#[$word_doc])* $variant,)* }

        impl $type {
            const WORDS: &[(&str, Self)] = &[$(($word, Self::$variant),)*];

            /// The word for it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

words! {
    /// What clients speak to a listener.
    Protocol {
        /// HTTP/1 over TCP.
        Http = "http",
        /// HTTP over TLS, by `[tls]`.
        Https = "https",
    }
}

words! {
    /// Whether HTTP/2 is offered (by ALPN, so over TLS alone).
    OfferHttp2 {
        /// It is, as in HAProxy since 2.8.
        On = "on",
        /// HTTP/1 only.
        Off = "off",
    }
}

words! {
    /// Whether a listener sends clients elsewhere.
    Redirect {
        /// It serves them.
        Off = "off",
        /// To https, but for ACME's challenges.
        Https = "https",
    }
}

words! {
    /// Whether connections begin with a PROXY header (haproxy/doc/proxy-protocol.txt).
    AcceptProxy {
        /// They do not; one would be a bad request.
        Off = "off",
        /// All do, and come from `frontend.trusted_proxies`.
        Required = "required",
    }
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Its name; every listener has another one. It has no default.
    pub name: ListenerName,
    /// Where it listens, at least one address. It has no default. `[::]` takes IPv4 as well.
    pub listen: Vec<SocketAddr>,
    /// What clients speak. Default http.
    pub protocol: Protocol,
    /// Default on. Without TLS it means nothing.
    pub http2: OfferHttp2,
    /// Default off.
    pub redirect: Redirect,
    /// Default off.
    pub accept_proxy: AcceptProxy,
    /// Connections open at once; beyond it new ones wait in the backlog, those of other listeners do not. Default: what the process may
    /// have (`frontend.max_connections`).
    pub max_connections: Option<usize>,
    /// What shards are told in `X-Forwarded-Proto`. Default https over TLS, http where clients are sent to https, else what `[frontend]`
    /// says.
    pub forwarded_proto: Option<ForwardedProto>,
}

/// Whether there is a `[tls]` to speak https by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Certificates {
    Given,
    None,
}

impl ListenerConfig {
    /// HTTPS with HTTP/2 on one address, with every default.
    #[must_use]
    pub fn https(address: SocketAddr) -> Self {
        Self {
            name: ListenerName("https".to_owned()),
            listen: vec![address],
            protocol: Protocol::Https,
            http2: OfferHttp2::On,
            redirect: Redirect::Off,
            accept_proxy: AcceptProxy::Off,
            max_connections: None,
            forwarded_proto: None,
        }
    }

    pub(super) fn read(
        mut section: Section<'_>,
        others: &[Self],
        certificates: Certificates,
    ) -> Option<Self> {
        let name = section.require("name", NAME, value::text(NAME, ListenerName::parse));
        if let Some(name) = name.as_ref().filter(|name| others.iter().any(|other| other.name == **name)) {
            section.refuse("name", name, "a name that no other listener has".to_owned());
        }
        let listen = section.require_list("listen", "addresses", value::listen_address);
        if listen.as_ref().is_some_and(Vec::is_empty) {
            section.refuse("listen", &"[]", "at least one address".to_owned());
        }
        for (index, address) in listen.iter().flatten().enumerate() {
            section.bind("listen", Some(index), *address);
        }
        let protocol = section.get("protocol", value::word(Protocol::WORDS)).unwrap_or(Protocol::Http);
        let redirect = section.get("redirect", value::word(Redirect::WORDS)).unwrap_or(Redirect::Off);
        if protocol == Protocol::Https && certificates == Certificates::None {
            section.refuse("protocol", &"\"https\"", "\"http\", or certificates in [tls]".to_owned());
        }
        if protocol == Protocol::Https && redirect == Redirect::Https {
            section.refuse(
                "redirect",
                &"\"https\"",
                "\"off\" where protocol is \"https\" already".to_owned(),
            );
        }
        let config = Self {
            name: name.unwrap_or_else(|| ListenerName(String::new())),
            listen: listen.unwrap_or_default(),
            protocol,
            http2: section.get("http2", value::word(OfferHttp2::WORDS)).unwrap_or(OfferHttp2::On),
            redirect,
            accept_proxy: section
                .get("accept_proxy", value::word(AcceptProxy::WORDS))
                .unwrap_or(AcceptProxy::Off),
            max_connections: section.get("max_connections", value::integer(1..=CONNECTIONS_MAX)),
            forwarded_proto: section.get("forwarded_proto", value::word(ForwardedProto::WORDS)),
        };
        section.finish();
        (!config.name.as_str().is_empty() && !config.listen.is_empty()).then_some(config)
    }
}

impl fmt::Display for ListenerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[[listeners]]")?;
        writeln!(f, "name = {}", write::text(self.name.as_str()))?;
        writeln!(f, "listen = {}", write::list(&self.listen))?;
        writeln!(f, "protocol = {}", write::text(self.protocol.as_str()))?;
        writeln!(f, "http2 = {}", write::text(self.http2.as_str()))?;
        writeln!(f, "redirect = {}", write::text(self.redirect.as_str()))?;
        writeln!(f, "accept_proxy = {}", write::text(self.accept_proxy.as_str()))?;
        if let Some(max) = self.max_connections {
            writeln!(f, "max_connections = {max}")?;
        }
        if let Some(proto) = self.forwarded_proto {
            writeln!(f, "forwarded_proto = {}", write::text(proto.as_str()))?;
        }
        Ok(())
    }
}
