//! Who may use the node from other hosts, as an operator writes it: ways to say who one is, names in certificates with
//! the role that they stand for, cipher suites.
use std::fmt;

use crate::list::List;
use crate::value::{Value, choices, shorten};

choices! {
    /// How somebody from another host says who it is.
    pub enum Mechanism {
        MutualTls = "mutual_tls",
        Jwt = "jwt",
        ApiKey = "api_key",
    }

    /// What the holder of a certificate may do.
    pub enum SubjectRole {
        Read = "read",
        Operate = "operate",
        Admin = "admin",
    }

    /// Cipher suites of TLS 1.3 (RFC 8446, appendix B.4).
    pub enum CipherSuite {
        Aes256Gcm = "TLS_AES_256_GCM_SHA384",
        Aes128Gcm = "TLS_AES_128_GCM_SHA256",
        ChaCha20Poly1305 = "TLS_CHACHA20_POLY1305_SHA256",
    }

    /// Oldest version of TLS that is spoken.
    pub enum TlsVersion {
        Tls13 = "1.3",
    }
}

/// `security.authentication.mechanism`.
pub type Mechanisms = List<Mechanism>;
/// `security.authentication.allowed_subjects`.
pub type Subjects = List<SubjectRule>;
/// `security.tls.cipher_suites`, the preferred one first.
pub type CipherSuites = List<CipherSuite>;

/// One pattern for names in certificates, and the role of whoever shows such a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectRule {
    /// What they may do; `read` where nothing is said.
    pub role: SubjectRole,
    /// Where the name stands.
    pub field: SubjectField,
    /// `*` stands for any characters but a dot.
    pub pattern: String,
}

/// Where in a certificate a name stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectField {
    /// The subject's common name; where the certificate names DNS names too, one of them has to fit as well.
    CommonName,
    /// One of the DNS names alone.
    Dns,
}

impl SubjectRule {
    /// Whether a certificate with these names falls under the rule. Case does not matter.
    #[must_use]
    pub fn matches(&self, common_name: Option<&str>, dns_names: &[String]) -> bool {
        let fits = |name: &str| glob(self.pattern.as_bytes(), name.as_bytes());
        let has_dns = dns_names.iter().any(|name| fits(name));
        match self.field {
            SubjectField::CommonName => common_name.is_some_and(fits) && (dns_names.is_empty() || has_dns),
            SubjectField::Dns => has_dns,
        }
    }
}

/// The strongest role among the rules that a certificate falls under.
#[must_use]
pub fn subject_role(
    rules: &Subjects,
    common_name: Option<&str>,
    dns_names: &[String],
) -> Option<SubjectRole> {
    let fitting = rules.0.iter().filter(|rule| rule.matches(common_name, dns_names));
    fitting.map(|rule| rule.role).max_by_key(|role| *role as u8)
}

/// Whether a name fits a pattern; `*` takes no dot, as in certificates of servers (RFC 9525, section 6.3). One
/// backtracking point is enough, so that no pattern makes this slow.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut last_star = None;
    while read < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                last_star = Some((at, read));
                at += 1;
            }
            Some(wanted) if wanted.eq_ignore_ascii_case(&name[read]) => {
                at += 1;
                read += 1;
            }
            _ => {
                let Some((star, from)) = last_star.filter(|(_, from)| name[*from] != b'.') else {
                    return false;
                };
                last_star = Some((star, from + 1));
                (at, read) = (star + 1, from + 1);
            }
        }
    }
    pattern[at..].iter().all(|&rest| rest == b'*')
}

impl fmt::Display for SubjectRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = match self.field {
            SubjectField::CommonName => "CN",
            SubjectField::Dns => "DNS",
        };
        write!(f, "{}:{field}={}", self.role.as_str(), self.pattern)
    }
}

impl Value for SubjectRule {
    fn kind() -> String {
        "[ROLE:]CN=PATTERN \\| [ROLE:]DNS=PATTERN".into()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let (role, name) = match text.split_once(':') {
            Some((role, name)) => (SubjectRole::parse(role.trim())?, name.trim()),
            None => (SubjectRole::Read, text),
        };
        let wrong = || {
            let text = shorten(text);
            format!("expected a name such as CN=node-*.example or admin:DNS=ops.example, found `{text}`")
        };
        let (field, pattern) = name.split_once('=').ok_or_else(wrong)?;
        let field = match field {
            "CN" => SubjectField::CommonName,
            "DNS" => SubjectField::Dns,
            _ => return Err(wrong()),
        };
        let is_usable = (1..=PATTERN_BYTES_MAX).contains(&pattern.len())
            && pattern.chars().all(|c| c.is_ascii_graphic() && c != ',');
        if is_usable { Ok(Self { role, field, pattern: pattern.to_owned() }) } else { Err(wrong()) }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A DNS name has at most as many (RFC 1035, section 2.3.4).
const PATTERN_BYTES_MAX: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> SubjectRule {
        SubjectRule::parse(text).unwrap()
    }

    #[test]
    fn patterns_stay_within_one_label_and_ignore_case() {
        for (pattern, name, fits) in [
            ("node-*.example", "node-7.example", true),
            ("node-*.example", "NODE-7.Example", true),
            ("node-*.example", "node-.example", true),
            ("node-*.example", "node-7.evil.example", false),
            ("node-*.example", "node-7.example.evil", false),
            ("*", "node", true),
            ("*", "node.example", false),
            ("*.*", "node.example", true),
            ("a*b*c", "aXbXbYc", true),
            ("a*b*c", "aXbXbY", false),
            ("node", "node", true),
            ("node", "nod", false),
            ("nod", "node", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), name.as_bytes()), fits, "{pattern} {name}");
        }
        let slow = "*a".repeat(60);
        assert!(!glob(slow.as_bytes(), "a".repeat(59).as_bytes()));
        assert!(!glob(slow.as_bytes(), format!("{}b", "a".repeat(200)).as_bytes()));
    }

    #[test]
    fn a_common_name_alone_does_not_outdo_the_dns_names() {
        let dns = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let node = rule("CN=node-*.example");
        assert!(node.matches(Some("node-1.example"), &[]));
        assert!(node.matches(Some("node-1.example"), &dns(&["x.example", "node-1.example"])));
        assert!(!node.matches(Some("node-1.example"), &dns(&["other.example"])));
        assert!(!node.matches(None, &dns(&["node-1.example"])));
        assert!(rule("DNS=node-*.example").matches(None, &dns(&["node-1.example"])));
    }

    #[test]
    fn the_strongest_role_counts_and_strangers_have_none() {
        let rules = Subjects::parse("CN=node-*,operate:CN=node-1,admin:CN=ops").unwrap();
        let role = |name: &str| subject_role(&rules, Some(name), &[]);
        assert_eq!(role("node-1"), Some(SubjectRole::Operate));
        assert_eq!(role("node-2"), Some(SubjectRole::Read));
        assert_eq!(role("ops"), Some(SubjectRole::Admin));
        assert_eq!(role("guest"), None);
        assert_eq!(Subjects::parse(&rules.show()).unwrap(), rules);
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for text in ["", "node", "CN=", "O=example", "king:CN=a", "CN=a b", "CN=\u{e9}", ":CN=a"] {
            assert!(SubjectRule::parse(text).is_err(), "{text}");
        }
    }
}
