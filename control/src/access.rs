//! Who may do what over HTTP: roles, and API keys that stand for them. Keys are kept as digests; the key itself is shown
//! once, to the one who made it. Used by HTTP; decides nothing about where a request comes from.
use std::collections::BTreeMap;

use dwcp_api::{Role, Timestamp};

/// One key, as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiKey {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) role: Role,
    /// BLAKE3 of the whole key. It has 256 random bits: a slow digest would add nothing.
    pub(crate) digest: [u8; 32],
    pub(crate) created_ms: u64,
    pub(crate) expires_ms: Option<u64>,
}

/// Every key that is not revoked.
#[derive(Debug, Default)]
pub(crate) struct ApiKeys {
    by_id: BTreeMap<String, ApiKey>,
}

impl ApiKeys {
    pub(crate) fn new(keys: Vec<ApiKey>) -> Self {
        Self { by_id: keys.into_iter().map(|key| (key.id.clone(), key)).collect() }
    }

    pub(crate) fn list(&self) -> impl Iterator<Item = &ApiKey> {
        self.by_id.values()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.by_id.len() >= KEYS_MAX
    }

    pub(crate) fn insert(&mut self, key: ApiKey) {
        self.by_id.insert(key.id.clone(), key);
    }

    pub(crate) fn remove(&mut self, id: &str) -> Option<ApiKey> {
        self.by_id.remove(id)
    }

    /// The key that this text is, unless it has expired or nobody made it.
    pub(crate) fn verify(&self, text: &str, now_ms: u64) -> Option<&ApiKey> {
        let id = text.strip_prefix(PREFIX)?.split('_').next()?;
        let key = self.by_id.get(id)?;
        // Digests compare in constant time.
        let is_right = blake3::hash(text.as_bytes()) == blake3::Hash::from_bytes(key.digest);
        (is_right && key.expires_ms.is_none_or(|expires| now_ms < expires)).then_some(key)
    }
}

/// A new key and its text, made of `random`.
pub(crate) fn new_key(
    name: String,
    role: Role,
    expires_ms: Option<u64>,
    random: &[u8; RANDOM_BYTES],
    created_ms: u64,
) -> (ApiKey, String) {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let id = hex(&random[..ID_BYTES]);
    let text = format!("{PREFIX}{id}_{}", hex(&random[ID_BYTES..]));
    let digest = *blake3::hash(text.as_bytes()).as_bytes();
    (ApiKey { id, name, role, digest, created_ms, expires_ms }, text)
}

/// What an operation needs. Reading is for everybody who is known; transfers, breakers and draining are daily work;
/// everything else changes the node.
pub(crate) fn required(method: &axum::http::Method, path: &str) -> Role {
    use dwcp_api::paths;
    let is_reading = method == axum::http::Method::GET || method == axum::http::Method::HEAD;
    if path.starts_with(paths::AUTH_KEYS) || [paths::AUDIT, paths::AUTH_TOKEN_KEYS].contains(&path) {
        return Role::Admin;
    }
    // Whoever asks for a token gets at most what it has; the handler sees to that.
    if is_reading || [paths::CONFIG_VALIDATE, paths::AUTH_TOKEN].contains(&path) {
        return Role::Read;
    }
    let is_daily = path.starts_with(paths::TRANSFERS)
        || path.starts_with(paths::PEERS)
        || [paths::BREAKER_RESET, paths::DRAIN].contains(&path);
    if is_daily { Role::Operate } else { Role::Admin }
}

/// One line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuditRecord {
    pub(crate) at_ms: u64,
    pub(crate) who: String,
    pub(crate) role: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) status: u16,
    pub(crate) request_id: String,
}

impl AuditRecord {
    pub(crate) fn document(self) -> dwcp_api::AuditEntry {
        let Self { at_ms, who, role, method, path, status, request_id } = self;
        let timestamp = Timestamp::from_unix_ms(at_ms);
        dwcp_api::AuditEntry { timestamp, who, role, method, path, status, request_id }
    }
}

const PREFIX: &str = "dwcp_";
const ID_BYTES: usize = 6;
pub(crate) const RANDOM_BYTES: usize = ID_BYTES + 32;
const KEYS_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Method;
    use dwcp_api::paths;

    fn keys() -> (ApiKeys, String) {
        let (key, text) = new_key("ci".into(), Role::Operate, Some(1000), &[7; RANDOM_BYTES], 5);
        assert!(!format!("{key:?}").contains(&text[20..]), "the key itself must not be kept");
        (ApiKeys::new(vec![key]), text)
    }

    #[test]
    fn only_the_whole_key_is_taken_and_only_until_it_expires() {
        let (mut keys, text) = keys();
        assert_eq!(keys.verify(&text, 999).unwrap().role, Role::Operate);
        assert_eq!(keys.verify(&text, 1000), None);
        for wrong in
            ["", "dwcp_", &text[1..], &text[..text.len() - 1], &format!("{text}0"), &text.to_uppercase()]
        {
            assert_eq!(keys.verify(wrong, 0), None, "{wrong}");
        }
        let id = keys.list().next().unwrap().id.clone();
        assert!(keys.remove(&id).is_some() && keys.verify(&text, 0).is_none());
    }

    #[test]
    fn every_change_needs_more_than_reading() {
        assert_eq!(required(&Method::GET, paths::STATUS), Role::Read);
        assert_eq!(required(&Method::POST, paths::TRANSFERS), Role::Operate);
        assert_eq!(required(&Method::DELETE, "/api/v1/dwcp/transfers/7"), Role::Operate);
        for (method, path) in [
            (Method::PATCH, paths::CONFIG),
            (Method::POST, paths::CONFIG_RELOAD),
            (Method::PUT, paths::MODE),
            (Method::POST, paths::BACKUP),
            (Method::POST, paths::RESTORE),
            (Method::GET, paths::AUTH_KEYS),
            (Method::GET, paths::AUTH_TOKEN_KEYS),
            (Method::POST, paths::AUTH_TOKEN_KEYS),
            (Method::DELETE, "/api/v1/auth/keys/00"),
            (Method::GET, paths::AUDIT),
            (Method::POST, "/something/new"),
        ] {
            assert_eq!(required(&method, path), Role::Admin, "{method} {path}");
        }
    }
}
