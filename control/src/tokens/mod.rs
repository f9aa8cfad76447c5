//! Tokens: short-lived proofs of a role, and the keys that sign them. The keys are of this node alone and lie in a file
//! of the state directory that is no part of copies of the state: restoring one brings no revoked token back. A key is
//! replaced after a month, and its tokens live on to their ends; a key that an operator replaces takes them along.
mod jws;

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde::{Deserialize, Serialize};

pub(crate) use jws::{Claims, TokenError};

/// The keys in use.
#[derive(Debug, Default)]
pub(crate) struct Keyring {
    file: PathBuf,
    current: Option<Signer>,
    /// Signs nothing any more.
    former: Option<Signer>,
    /// Why the file of the keys cannot be used.
    trouble: Option<String>,
}

#[derive(Debug)]
struct Signer {
    id: String,
    pair: Ed25519KeyPair,
    pkcs8: Secret,
    created_ms: u64,
}

/// Bytes that no log shows.
struct Secret(Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("secret")
    }
}

/// One key, as others may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyInfo {
    pub(crate) id: String,
    pub(crate) created_ms: u64,
    pub(crate) signs: bool,
}

/// Who a token is for.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) issuer: String,
    pub(crate) subject: String,
    pub(crate) role: dwcp_api::Role,
    pub(crate) lifetime_s: u64,
}

/// Why there is no token, or no new key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyringError {
    #[error("{file} cannot be used: {reason}; `dwcp auth rotate` makes it anew, and every token with it")]
    Unusable { file: String, reason: String },
    #[error("{file} cannot be written: {error}")]
    Unwritable { file: String, error: std::io::Error },
    #[error("the kernel gives no random bytes")]
    NoRandom,
}

impl Keyring {
    /// Reads the keys of a state directory; there are none before the first token. What cannot be read keeps nothing
    /// else from working.
    pub(crate) fn open(state_directory: &Path) -> Self {
        let file = state_directory.join(FILE_NAME);
        let mut keyring = Self { file, current: None, former: None, trouble: None };
        match read(&keyring.file) {
            Ok(None) => {}
            Ok(Some(stored)) => match stored.signers() {
                Some((current, former)) => (keyring.current, keyring.former) = (Some(current), former),
                None => keyring.trouble = Some("it holds no usable keys".into()),
            },
            Err(reason) => keyring.trouble = Some(reason),
        }
        keyring
    }

    /// Why no token counts, where that is so.
    pub(crate) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Makes a token; the first one makes the key, and the first one of a month a new one.
    pub(crate) fn issue(&mut self, order: Order, now_ms: u64) -> Result<(String, Claims), KeyringError> {
        if let Some(reason) = &self.trouble {
            return Err(KeyringError::Unusable { file: self.name(), reason: reason.clone() });
        }
        let is_old = |signer: &Signer| now_ms.saturating_sub(signer.created_ms) >= KEY_AGE_MS_MAX;
        if self.current.as_ref().is_none_or(is_old) {
            let new = Signer::generate(now_ms)?;
            self.keep(Some(&new), self.current.as_ref())?;
            self.former = self.current.replace(new);
        }
        let now_s = now_ms / 1000;
        let mut number = [0; NUMBER_BYTES];
        SystemRandom::new().fill(&mut number).map_err(|_| KeyringError::NoRandom)?;
        let claims = Claims {
            iss: order.issuer,
            aud: jws::AUDIENCE.into(),
            sub: order.subject,
            role: order.role,
            iat: now_s,
            exp: now_s + order.lifetime_s,
            jti: hex(&number),
        };
        let signer = self.current.as_ref().ok_or(KeyringError::NoRandom)?;
        Ok((jws::sign(&claims, &signer.id, &signer.pair), claims))
    }

    /// Replaces the key, and forgets the former ones: no token that was ever made counts any more.
    pub(crate) fn rotate(&mut self, now_ms: u64) -> Result<(), KeyringError> {
        let new = Signer::generate(now_ms)?;
        self.keep(Some(&new), None)?;
        (self.current, self.former, self.trouble) = (Some(new), None, None);
        Ok(())
    }

    /// What a token says, while it counts.
    pub(crate) fn verify(&self, text: &str, issuer: &str, now_ms: u64) -> Result<Claims, TokenError> {
        let keys = || self.current.iter().chain(&self.former);
        jws::verify(text, issuer, now_ms / 1000, |id| {
            let signer = keys().find(|signer| signer.id == id)?;
            Some(signer.pair.public_key().as_ref())
        })
    }

    /// The keys that tokens may be signed with.
    pub(crate) fn keys(&self) -> Vec<KeyInfo> {
        let info =
            |signer: &Signer, signs| KeyInfo { id: signer.id.clone(), created_ms: signer.created_ms, signs };
        let current = self.current.iter().map(|signer| info(signer, true));
        current.chain(self.former.iter().map(|signer| info(signer, false))).collect()
    }

    fn keep(&self, current: Option<&Signer>, former: Option<&Signer>) -> Result<(), KeyringError> {
        let keys = current.into_iter().chain(former).map(Signer::stored).collect();
        let stored = Stored { schema: SCHEMA.into(), keys };
        replace(&self.file, &serde_json::to_vec(&stored).unwrap_or_default())
            .map_err(|error| KeyringError::Unwritable { file: self.name(), error })
    }

    fn name(&self) -> String {
        self.file.display().to_string()
    }
}

impl Signer {
    fn generate(created_ms: u64) -> Result<Self, KeyringError> {
        let pkcs8 =
            Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyringError::NoRandom)?;
        Self::new(pkcs8.as_ref().to_vec(), created_ms).ok_or(KeyringError::NoRandom)
    }

    fn new(pkcs8: Vec<u8>, created_ms: u64) -> Option<Self> {
        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).ok()?;
        let id = hex(&blake3::hash(pair.public_key().as_ref()).as_bytes()[..ID_BYTES]);
        Some(Self { id, pair, pkcs8: Secret(pkcs8), created_ms })
    }

    fn stored(&self) -> StoredKey {
        StoredKey { pkcs8: STANDARD.encode(&self.pkcs8.0), created_ms: self.created_ms }
    }
}

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    schema: String,
    /// The one that signs, then the former one.
    keys: Vec<StoredKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKey {
    /// RFC 8410, in base64.
    pkcs8: String,
    created_ms: u64,
}

impl Stored {
    fn signers(&self) -> Option<(Signer, Option<Signer>)> {
        if self.schema != SCHEMA || self.keys.len() > 2 {
            return None;
        }
        let signer = |key: &StoredKey| Signer::new(STANDARD.decode(&key.pkcs8).ok()?, key.created_ms);
        let mut signers = self.keys.iter().map(signer).collect::<Option<Vec<_>>>()?.into_iter();
        Some((signers.next()?, signers.next()))
    }
}

fn read(file: &Path) -> Result<Option<Stored>, String> {
    use std::io::Read;
    let opened = match std::fs::File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let mut bytes = Vec::new();
    opened.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    // What the parser quotes could be a piece of a key.
    serde_json::from_slice(&bytes).map(Some).map_err(|_| "it is damaged".into())
}

/// Replaces a file of secrets so that a crash leaves either the old or the new one.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    std::fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// In the state directory.
const FILE_NAME: &str = "token-keys.json";
const SCHEMA: &str = "dwcp.token-keys/1";
const FILE_BYTES_MAX: u64 = 64 << 10;
const ID_BYTES: usize = 8;
const NUMBER_BYTES: usize = 8;
const KEY_AGE_MS_MAX: u64 = 30 * 24 * 3600 * 1000;
/// A former key may be needed for as long as the tokens live that it signed last.
const _: () = assert!(KEY_AGE_MS_MAX > (jws::LIFETIME_S_MAX + jws::SKEW_S) * 1000);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use dwcp_api::Role;

    use super::*;

    fn order() -> Order {
        Order { issuer: "node-1".into(), subject: "ci".into(), role: Role::Read, lifetime_s: 3600 }
    }

    const NOW: u64 = 1_800_000_000_000;

    #[test]
    fn tokens_outlive_a_restart_and_no_rotation() {
        let directory = tempfile::tempdir().unwrap();
        let mut keyring = Keyring::open(directory.path());
        assert_eq!(keyring.keys(), []);
        let (token, claims) = keyring.issue(order(), NOW).unwrap();
        let mode = std::fs::metadata(directory.path().join(FILE_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut keyring = Keyring::open(directory.path());
        assert_eq!(keyring.verify(&token, "node-1", NOW), Ok(claims));
        assert_eq!(keyring.verify(&token, "node-2", NOW), Err(TokenError::Issuer));
        keyring.rotate(NOW).unwrap();
        assert_eq!(keyring.verify(&token, "node-1", NOW), Err(TokenError::Key));
        assert_eq!(Keyring::open(directory.path()).verify(&token, "node-1", NOW), Err(TokenError::Key));
        let (next, _) = keyring.issue(order(), NOW).unwrap();
        assert!(keyring.verify(&next, "node-1", NOW).is_ok());
    }

    #[test]
    fn a_key_is_replaced_after_a_month_and_its_last_tokens_live_on() {
        let directory = tempfile::tempdir().unwrap();
        let mut keyring = Keyring::open(directory.path());
        let (_, _) = keyring.issue(order(), NOW).unwrap();
        let almost = NOW + KEY_AGE_MS_MAX - 1000;
        let (last, _) = keyring.issue(order(), almost).unwrap();
        let (first, _) = keyring.issue(order(), NOW + KEY_AGE_MS_MAX).unwrap();
        let signs: Vec<bool> = keyring.keys().iter().map(|key| key.signs).collect();
        assert_eq!(signs, [true, false]);
        let keyring = Keyring::open(directory.path());
        let later = NOW + KEY_AGE_MS_MAX + 1000;
        assert!(keyring.verify(&last, "node-1", later).is_ok());
        assert!(keyring.verify(&first, "node-1", later).is_ok());
        // A clock that jumps back makes no new keys.
        let mut keyring = keyring;
        keyring.issue(order(), 5).unwrap();
        assert_eq!(keyring.keys().len(), 2);
    }

    #[test]
    fn damaged_keys_are_said_and_made_anew_only_when_asked() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(FILE_NAME);
        let many = format!(
            r#"{{"schema":"{SCHEMA}","keys":[{}]}}"#,
            [r#"{"pkcs8":"","created_ms":1}"#; 3].join(",")
        );
        for text in ["", "{}", "[1]", &format!(r#"{{"schema":"{SCHEMA}","keys":[]}}"#), &many] {
            std::fs::write(&file, text).unwrap();
            let mut keyring = Keyring::open(directory.path());
            assert!(keyring.trouble().is_some(), "{text}");
            let error = keyring.issue(order(), NOW).unwrap_err().to_string();
            assert!(error.contains("token-keys.json") && error.contains("dwcp auth rotate"), "{error}");
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text, "it was overwritten");
            keyring.rotate(NOW).unwrap();
            assert!(
                keyring.issue(order(), NOW).is_ok() && Keyring::open(directory.path()).trouble().is_none()
            );
        }
    }

    #[test]
    fn nothing_counts_that_could_not_be_kept() {
        let mut keyring = Keyring::open(Path::new("/proc/none"));
        assert!(matches!(keyring.issue(order(), NOW), Err(KeyringError::Unwritable { .. })));
        assert!(matches!(keyring.rotate(NOW), Err(KeyringError::Unwritable { .. })));
        assert_eq!(keyring.keys(), []);
    }
}
