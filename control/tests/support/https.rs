//! A client of the HTTPS interface, with and without a certificate of its own. Shared by the behaviour tests.
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{Control, Site};

/// Writes a certificate for localhost and its key; gives the certificate.
pub(crate) fn certify(site: &Site) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(site.path("key.new"), made.signing_key.serialize_pem()).unwrap();
    std::fs::rename(site.path("key.new"), site.path("server.key")).unwrap();
    std::fs::write(site.path("server.crt"), made.cert.pem()).unwrap();
    made.cert.der().clone()
}

pub(crate) fn secure(site: &Site, more: &str) -> CertificateDer<'static> {
    let certificate = certify(site);
    let (crt, key) = (site.path("server.crt"), site.path("server.key"));
    site.configure(&format!(
        "security: {{tls: {{cert_file: '{}', key_file: '{}'}}{more}}}\n",
        crt.display(),
        key.display()
    ));
    certificate
}

/// One request over TLS; the handshake's error where there is one.
pub(crate) fn ask(
    control: &Control,
    trusted: &CertificateDer<'static>,
    method: &str,
    path: &str,
    bearer: &str,
    body: &str,
) -> std::io::Result<(u16, String, String)> {
    ask_as(control, trusted, None, method, path, bearer, body)
}

/// The same, with a certificate of the client.
pub(crate) fn ask_as(
    control: &Control,
    trusted: &CertificateDer<'static>,
    shown: Option<&Shown>,
    method: &str,
    path: &str,
    bearer: &str,
    body: &str,
) -> std::io::Result<(u16, String, String)> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let config = match shown {
        None => config.with_no_client_auth(),
        Some((chain, key)) => config.with_client_auth_cert(chain.clone(), key.clone_key()).unwrap(),
    };
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, TcpStream::connect(control.tls_address.as_ref().unwrap())?);
    let bearer =
        if bearer.is_empty() { String::new() } else { format!("authorization: Bearer {bearer}\r\n") };
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: node-1\r\nconnection: close\r\n{bearer}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => return Err(error),
        _ => {}
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    Ok((head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_ascii_lowercase(), body.to_owned()))
}

/// A client's certificate with its chain, and its key.
pub(crate) type Shown = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Who vouches for clients.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "an authority");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate of a client with these names, valid until that year.
    pub(crate) fn vouch(&self, common_name: &str, dns_names: &[&str], until_year: i32) -> Shown {
        let names: Vec<String> = dns_names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(until_year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }
}
