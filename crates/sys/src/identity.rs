//! Who this node is: an Ed25519 key and a self-signed certificate, made at the first start and kept in the state
//! directory. Peers know the node by the certificate's [`Fingerprint`].
//!
//! Both halves load it: the dataplane shows it on lanes, control between the members of a cluster. Names and dates in the certificate mean nothing to anybody; there
//! is no authority and no revocation but taking the fingerprint out of the peers' configuration.
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use nix::fcntl::{AT_FDCWD, OFlag, RenameFlags, renameat2};
use ring::digest::{SHA256, digest};
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

/// SHA-256 of a node's certificate in DER. Its text form is `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

/// Key and certificate of this node.
#[derive(Debug, Clone)]
pub struct Identity {
    certified: Arc<CertifiedKey>,
    fingerprint: Fingerprint,
}

/// Why a node has no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file or directory would not do what was asked.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may read the key.
    #[error(
        "{} has mode {mode:04o}: others may read the node's key. `chmod 0600` it; if somebody may have read it, \
         delete it, restart, and give the new fingerprint to every peer",
        path.display()
    )]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Somebody else could replace the key.
    #[error("{} belongs to user {owner}, not to the user of this process or root", path.display())]
    Owner {
        /// The key file.
        path: PathBuf,
        /// Its owner's user id.
        owner: u32,
    },
    /// The file holds no Ed25519 key with its certificate.
    #[error(
        "{} holds no identity ({reason}): restore it from a backup, or delete it, restart, and give the new \
         fingerprint to every peer",
        path.display()
    )]
    Content {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No key or certificate could be made.
    #[error("cannot make a key and certificate: {0}")]
    Generate(String),
}

/// Text that is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is `sha256:` and 64 hexadecimal digits")]
pub struct FingerprintError;

impl Identity {
    /// Loads the identity from `directory`, or makes one there if there is none yet. The directory is made where
    /// it is missing (mode 0700).
    ///
    /// # Errors
    /// Any [`IdentityError`]; an existing file is never replaced.
    pub fn load_or_create(directory: &Path) -> Result<Self, IdentityError> {
        let path = directory.join(FILE_NAME);
        match Self::load(&path) {
            Err(IdentityError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            loaded => return loaded,
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(failed("make the directory", directory))?;
        let (_, pem) = generate()?;
        store(directory, &path, pem.as_bytes())?;
        Self::load(&path)
    }

    /// Makes an identity that lives in memory only.
    ///
    /// # Errors
    /// [`IdentityError::Generate`].
    pub fn generate() -> Result<Self, IdentityError> {
        generate().map(|(identity, _)| identity)
    }

    /// SHA-256 of the certificate: what peers list.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The certificate's bytes.
    #[must_use]
    pub fn certificate_der(&self) -> &[u8] {
        self.certified.cert.first().map_or(&[], |certificate| certificate.as_ref())
    }

    /// Key and certificate for TLS.
    #[must_use]
    pub fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    fn load(path: &Path) -> Result<Self, IdentityError> {
        let pem = read_guarded(path)?;
        Self::from_pem(&pem).map_err(|reason| IdentityError::Content { path: path.to_owned(), reason })
    }

    fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|error| format!("private key: {error}"))?;
        let certificate =
            CertificateDer::from_pem_slice(pem).map_err(|error| format!("certificate: {error}"))?;
        Self::from_der(&key, certificate)
    }

    fn from_der(key: &PrivatePkcs8KeyDer<'_>, certificate: CertificateDer<'static>) -> Result<Self, String> {
        let fingerprint = Fingerprint::of_certificate(&certificate);
        let key = any_eddsa_type(key).map_err(|error| format!("private key: {error}"))?;
        let certified = CertifiedKey::new(vec![certificate], key);
        certified.keys_match().map_err(|error| format!("key and certificate: {error}"))?;
        Ok(Self { certified: Arc::new(certified), fingerprint })
    }
}

impl Fingerprint {
    /// Fingerprint of a certificate in DER.
    #[must_use]
    pub fn of_certificate(der: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, der).as_ref());
        Self(bytes)
    }
}

impl Fingerprint {
    /// Its first eight bytes in hexadecimal: enough to tell the nodes of one machine apart.
    #[must_use]
    pub fn short(&self) -> String {
        self.0.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let digits = text.strip_prefix(PREFIX).ok_or(FingerprintError)?.as_bytes();
        if digits.len() != 64 {
            return Err(FingerprintError);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

fn digit(character: u8) -> Result<u8, FingerprintError> {
    let value = char::from(character).to_digit(16).ok_or(FingerprintError)?;
    u8::try_from(value).map_err(|_| FingerprintError)
}

fn generate() -> Result<(Identity, String), IdentityError> {
    let failed = |error: rcgen::Error| IdentityError::Generate(error.to_string());
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(failed)?;
    let mut parameters = rcgen::CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "DWCP node");
    let certificate = parameters.self_signed(&key).map_err(failed)?;
    let pem = key.serialize_pem() + &certificate.pem();
    let identity = Identity::from_pem(pem.as_bytes()).map_err(IdentityError::Generate)?;
    Ok((identity, pem))
}

/// Reads the key file, and refuses it where others could have read or written it. The checks are made on the open
/// file, so that nobody can change it in between.
fn read_guarded(path: &Path) -> Result<Vec<u8>, IdentityError> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = opened.map_err(failed("open", path))?;
    let metadata = file.metadata().map_err(failed("inspect", path))?;
    if !metadata.is_file() {
        let reason = "it is not a regular file".to_owned();
        return Err(IdentityError::Content { path: path.to_owned(), reason });
    }
    let owner = metadata.uid();
    if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
        return Err(IdentityError::Owner { path: path.to_owned(), owner });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Exposed { path: path.to_owned(), mode });
    }
    let mut pem = Vec::new();
    file.take(FILE_LENGTH_MAX).read_to_end(&mut pem).map_err(failed("read", path))?;
    Ok(pem)
}

/// Key and certificate are one file, so that no crash can part them. Where another process was faster, its file
/// stays and this one's is dropped.
fn store(directory: &Path, path: &Path, pem: &[u8]) -> Result<(), IdentityError> {
    let temporary = directory.join(format!("{FILE_NAME}.{}.new", std::process::id()));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove", &temporary)(error));
        }
        _ => {}
    }
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary);
    let mut file = created.map_err(failed("create", &temporary))?;
    file.write_all(pem).map_err(failed("write", &temporary))?;
    file.sync_all().map_err(failed("make durable", &temporary))?;
    match renameat2(AT_FDCWD, &temporary, AT_FDCWD, path, RenameFlags::RENAME_NOREPLACE) {
        Ok(()) => {}
        Err(nix::Error::EEXIST) => fs::remove_file(&temporary).map_err(failed("remove", &temporary))?,
        Err(error) => return Err(failed("create", path)(error.into())),
    }
    let opened = File::open(directory).and_then(|directory| directory.sync_all());
    opened.map_err(failed("make durable", directory))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| IdentityError::Io { action, path, source }
}

const FILE_NAME: &str = "identity.pem";
const FILE_LENGTH_MAX: u64 = 64 * 1024;
const PREFIX: &str = "sha256:";

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn an_identity_is_made_once_and_then_reloaded() {
        let directory = tempfile::tempdir().expect("directory");
        let state = directory.path().join("state/dwcp");
        let first = Identity::load_or_create(&state).expect("made");
        let second = Identity::load_or_create(&state).expect("loaded");
        assert_eq!(first.fingerprint(), second.fingerprint());
        assert_eq!(first.certificate_der(), second.certificate_der());
        assert_eq!(Fingerprint::of_certificate(first.certificate_der()), first.fingerprint());
        let mode = fs::metadata(state.join(FILE_NAME)).expect("file").mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(fs::read_dir(&state).expect("listing").count(), 1, "nothing but the key remains");
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().expect("directory");
        Identity::load_or_create(directory.path()).expect("made");
        let path = directory.path().join(FILE_NAME);
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("chmod");
            let refused = Identity::load_or_create(directory.path()).expect_err("refused");
            assert!(matches!(refused, IdentityError::Exposed { .. }), "{refused}");
            assert!(refused.to_string().contains("chmod 0600"), "{refused}");
        }
    }

    #[test]
    fn damaged_or_foreign_content_is_refused_and_kept() {
        let directory = tempfile::tempdir().expect("directory");
        Identity::load_or_create(directory.path()).expect("made");
        let path = directory.path().join(FILE_NAME);
        let pem = fs::read(&path).expect("read");
        let (_, other) = generate().expect("other");
        let foreign = other.find("-----BEGIN CERT").map(|at| &other.as_bytes()[at..]).expect("certificate");
        let key_end = pem.windows(14).position(|window| window == b"-----BEGIN CER").expect("certificate");
        let mixed = [&pem[..key_end], foreign].concat();
        for content in [&b""[..], b"garbage", &pem[..key_end], &pem[key_end..], &mixed] {
            fs::write(&path, content).expect("written");
            let refused = Identity::load_or_create(directory.path()).expect_err("refused");
            assert!(matches!(refused, IdentityError::Content { .. }), "{refused}");
            assert_eq!(fs::read(&path).expect("read"), content);
        }
    }

    #[test]
    fn links_and_pipes_are_refused() {
        let directory = tempfile::tempdir().expect("directory");
        let elsewhere = tempfile::tempdir().expect("directory");
        Identity::load_or_create(elsewhere.path()).expect("made");
        symlink(elsewhere.path().join(FILE_NAME), directory.path().join(FILE_NAME)).expect("link");
        assert!(Identity::load_or_create(directory.path()).is_err());
        fs::remove_file(directory.path().join(FILE_NAME)).expect("removed");
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
        nix::unistd::mkfifo(&directory.path().join(FILE_NAME), mode).expect("pipe");
        assert!(matches!(Identity::load_or_create(directory.path()), Err(IdentityError::Content { .. })));
    }

    #[test]
    fn fingerprints_come_back_from_text() {
        let fingerprint = Fingerprint::of_certificate(b"certificate");
        let text = fingerprint.to_string();
        assert_eq!(text.len(), 7 + 64);
        assert_eq!(text.parse(), Ok(fingerprint));
        assert_eq!(text.to_uppercase().replace("SHA256", "sha256").parse(), Ok(fingerprint));
        let no_digit = format!("{}g", &text[..70]);
        for wrong in ["", "sha256:", &text[7..], &text[..70], &format!("{text}0"), &no_digit] {
            assert_eq!(Fingerprint::from_str(wrong), Err(FingerprintError), "{wrong}");
        }
    }
}
