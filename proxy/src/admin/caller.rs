//! Who is at the other end of an admin connection.

use std::net::SocketAddr;

use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::serve::IncomingStream;
use ring::digest::{SHA256, digest};
use tokio::net::{TcpListener, UnixListener};
use tonic::Request;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::audit::Caller;
use crate::config::AdminAddress;

/// What a connection without TLS says of its other end.
#[derive(Debug, Clone, Copy)]
pub(super) enum OtherEnd {
    /// An address.
    Address(SocketAddr),
    /// A process of this machine, by what the kernel says (`SO_PEERCRED`); `None` where it does not.
    Process(Option<(u32, Option<i32>)>),
}

impl Connected<IncomingStream<'_, TcpListener>> for OtherEnd {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self::Address(*stream.remote_addr())
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for OtherEnd {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let credentials = stream.io().peer_cred().ok();
        Self::Process(credentials.map(|credentials| (credentials.uid(), credentials.pid())))
    }
}

impl Caller {
    /// Who has sent a request to the listener at `listen`.
    pub(super) fn of<T>(request: &Request<T>, listen: &AdminAddress) -> Self {
        let here = || listen.to_string();
        let address = request.remote_addr();
        let shown = || address.map_or_else(here, |address| address.to_string());
        let certificates = request.peer_certs();
        if let Some(certificate) = certificates.as_ref().and_then(|all| all.first()) {
            return Self::certified(certificate, shown());
        }
        match request.extensions().get::<ConnectInfo<OtherEnd>>() {
            Some(ConnectInfo(OtherEnd::Process(Some((uid, pid))))) => {
                Self::Process { uid: *uid, pid: *pid, from: here() }
            }
            Some(ConnectInfo(OtherEnd::Address(address))) => Self::Anybody { from: address.to_string() },
            Some(ConnectInfo(OtherEnd::Process(None))) | None => Self::Anybody { from: shown() },
        }
    }

    fn certified(der: &[u8], from: String) -> Self {
        let fingerprint = digest(&SHA256, der).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Self::Certified { name: name(der).unwrap_or_else(|| "?".to_owned()), fingerprint, from }
    }
}

/// The common name of a certificate's subject, else its first name of a host or a resource.
fn name(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let common = certificate.subject().iter_common_name().find_map(|name| name.as_str().ok());
    if let Some(common) = common.filter(|name| !name.is_empty()) {
        return Some(common.to_owned());
    }
    let names = certificate.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| {
        if let GeneralName::DNSName(name) | GeneralName::URI(name) = name {
            Some((*name).to_owned())
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::string::Ia5String;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    fn made(common: Option<&str>, names: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(common) = common {
            params.distinguished_name.push(DnType::CommonName, common);
        }
        params.subject_alt_names = names;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_has_a_name() {
        let dns = || SanType::DnsName(Ia5String::try_from("ops.example.com").unwrap());
        let uri = || SanType::URI(Ia5String::try_from("spiffe://example.com/ops").unwrap());
        for (common, names, called) in [
            (Some("alice"), vec![dns()], "alice"),
            (None, vec![dns(), uri()], "ops.example.com"),
            (None, vec![uri(), dns()], "spiffe://example.com/ops"),
            (None, vec![SanType::IpAddress([127, 0, 0, 1].into()), uri()], "spiffe://example.com/ops"),
            (None, vec![], "?"),
        ] {
            let Caller::Certified { name, fingerprint, from } =
                Caller::certified(&made(common, names), "there".to_owned())
            else {
                panic!("it has a certificate")
            };
            assert_eq!((name.as_str(), fingerprint.len(), from.as_str()), (called, 64, "there"));
        }
    }
}
