//! Who asks: what a connection, a certificate, a key or a token says of the caller. Decides nothing about what the
//! caller may do; that is the guard's.
use std::net::IpAddr;
use std::sync::Arc;

use axum::http::{HeaderMap, header};
use dwcp_api::Role;
use dwcp_config::{Mechanism, Security, SubjectRole};

use crate::app::App;

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerKind {
    /// The unix socket; its mode says who may connect, and this user did.
    Unix {
        /// Who.
        uid: u32,
    },
    /// This host.
    Loopback,
    /// Any other host, in clear.
    Remote {
        /// Which.
        ip: IpAddr,
    },
    /// Any host, by way of TLS.
    Secure {
        /// Which.
        ip: IpAddr,
    },
}

/// Names in the certificate that a client has shown, and that was signed by one that we trust.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Shown {
    /// Where there is exactly one.
    pub(super) common_name: Option<String>,
    pub(super) dns_names: Vec<String>,
}

impl Shown {
    /// Of a certificate that was verified. Names that cannot be read are none.
    pub(super) fn of(certificate: &[u8]) -> Option<Arc<Self>> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let mut names = parsed.subject().iter_common_name();
        let first = names.next().and_then(|name| name.as_str().ok()).map(str::to_owned);
        let common_name = if names.next().is_none() { first } else { None };
        let dns_names = crate::certificates::dns_names(&parsed);
        Some(Arc::new(Self { common_name, dns_names }))
    }

    fn name(&self) -> String {
        let name = self.common_name.as_ref().or(self.dns_names.first());
        name.map_or_else(|| "without a name".into(), |name| crate::jobs::clean(name.as_bytes()))
    }
}

/// By what the caller is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Means {
    /// It is on this host.
    Local,
    ApiKey,
    Token,
    Certificate,
    /// It is not.
    Nothing,
}

/// Who asks, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    /// For the audit log.
    pub(super) name: String,
    /// Whose requests are counted together.
    pub(super) client: String,
    pub(super) means: Means,
    pub(super) role: Option<Role>,
    /// Why there is no role, where more is known than that nothing was said.
    pub(super) why: Option<String>,
}

impl Caller {
    pub(super) fn stranger(name: impl Into<String>) -> Self {
        let name = name.into();
        Self { client: name.clone(), name, means: Means::Nothing, role: None, why: None }
    }

    fn known(name: String, means: Means, role: Role) -> Self {
        Self { client: name.clone(), name, means, role: Some(role), why: None }
    }

    fn because(self, why: impl Into<String>) -> Self {
        Self { why: Some(why.into()), ..self }
    }
}

/// The caller's name and role.
pub(super) fn identify(app: &App, kind: PeerKind, shown: Option<&Shown>, headers: &HeaderMap) -> Caller {
    let settings = app.settings();
    let security = &settings.config.security;
    match kind {
        PeerKind::Unix { uid } => {
            let is_ours = uid == 0 || uid == nix::unistd::geteuid().as_raw();
            let role = if is_ours { Role::Admin } else { Role::Read };
            Caller::known(format!("uid {uid}"), Means::Local, role)
        }
        PeerKind::Loopback if security.trust_loopback => {
            Caller::known("loopback".into(), Means::Local, Role::Admin)
        }
        PeerKind::Loopback => Caller::stranger("loopback"),
        PeerKind::Remote { ip } => Caller::stranger(ip.to_string()),
        PeerKind::Secure { ip } => {
            let stranger = Caller::stranger(ip.to_string());
            match headers.get(header::AUTHORIZATION) {
                // What is said counts, also where it is wrong and the certificate alone would have been enough.
                Some(said) => match said.to_str().ok().and_then(bearer) {
                    Some(text) => by_bearer(app, security, text).unwrap_or_else(|why| stranger.because(why)),
                    None => stranger.because("Authorization must be `Bearer` and an API key or a token"),
                },
                None => match shown {
                    Some(shown) => {
                        by_certificate(security, shown).unwrap_or_else(|why| stranger.because(why))
                    }
                    None => stranger,
                },
            }
        }
    }
}

fn bearer(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| rest.trim())
}

/// A token has dots and a key has none. What is wrong with a key is not said: who holds one knows.
fn by_bearer(app: &App, security: &Security, text: &str) -> Result<Caller, String> {
    let takes = |mechanism| security.mechanisms.0.contains(&mechanism);
    let now_ms = app.now().unix_ms;
    if text.contains('.') {
        if !takes(Mechanism::Jwt) {
            return Err("tokens are switched off (security.authentication.mechanism)".into());
        }
        let verdict = app.tokens().verify(text, &app.node_id, now_ms);
        let claims = verdict.map_err(|error| format!("the token does not count: {error}"))?;
        let caller = Caller::known(format!("token {} {}", claims.sub, claims.jti), Means::Token, claims.role);
        return Ok(Caller { client: format!("token {}", claims.sub), ..caller });
    }
    if !takes(Mechanism::ApiKey) {
        return Err("API keys are switched off (security.authentication.mechanism)".into());
    }
    let shared = app.lock();
    let key = shared.keys.verify(text, now_ms).ok_or("no such API key counts")?;
    Ok(Caller::known(format!("key {}", key.id), Means::ApiKey, key.role))
}

fn by_certificate(security: &Security, shown: &Shown) -> Result<Caller, String> {
    if !security.mechanisms.0.contains(&Mechanism::MutualTls) {
        return Err("certificates are switched off (security.authentication.mechanism)".into());
    }
    let rules = &security.allowed_subjects;
    let role = dwcp_config::subject_role(rules, shown.common_name.as_deref(), &shown.dns_names);
    let role = match role {
        Some(SubjectRole::Read) => Role::Read,
        Some(SubjectRole::Operate) => Role::Operate,
        Some(SubjectRole::Admin) => Role::Admin,
        None => {
            let name = shown.name();
            return Err(format!(
                "the certificate of {name} stands for no role (security.authentication.allowed_subjects)"
            ));
        }
    };
    Ok(Caller::known(format!("certificate {}", shown.name()), Means::Certificate, role))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_has_no_case_and_needs_a_space() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bEARER  abc "), Some("abc"));
        for text in ["", "Bearer", "Bearerabc", "Basic abc", "abc"] {
            assert_eq!(bearer(text), None, "{text}");
        }
    }

    #[test]
    fn a_certificate_is_known_by_its_names() {
        let mut params = rcgen::CertificateParams::new(["node-1.example".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "node-1");
        let key = rcgen::KeyPair::generate().unwrap();
        let shown = Shown::of(params.self_signed(&key).unwrap().der()).unwrap();
        assert_eq!(shown.common_name.as_deref(), Some("node-1"));
        assert_eq!(shown.dns_names, ["node-1.example"]);
        assert_eq!(Shown::of(b"nothing"), None);
    }
}
