//! `dwcp cert renew`: a new key and a new certificate for the HTTPS interface. It needs no daemon: a running one sees
//! that the files changed. The former files stay beside the new ones.
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use dwcp_api::Timestamp;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use serde::Serialize;
use x509_parser::extensions::GeneralName;

use crate::arguments::Renew;
use crate::configuration;
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output;

/// Answer of `cert renew --json`.
#[derive(Debug, Serialize)]
struct Renewed {
    schema: &'static str,
    dry_run: bool,
    certificate: PathBuf,
    key: PathBuf,
    names: Vec<String>,
    signed_by: String,
    expires_at: Timestamp,
}

pub(super) fn run(context: &Context, arguments: &Renew) -> Result<Code, Failure> {
    let loaded = configuration::require(arguments.config.as_deref())?;
    let security = &loaded.config.security;
    let (certificate, key) = (&security.certificate_file, &security.key_file);
    let former = Former::read(certificate)?;
    if arguments.ca.is_none()
        && !arguments.self_signed
        && former.as_ref().is_some_and(|it| !it.is_self_signed)
    {
        return Err(Failure::usage(format!("{} is signed by an authority", certificate.display()))
            .with_hint("have the new one signed too: --ca FILE --ca-key FILE; or say --self-signed"));
    }
    let names = names(arguments, former.as_ref());
    let now = SystemTime::now();
    let until = now + Duration::from_secs(u64::from(arguments.days) * 24 * 3600);
    let (pem, key_pem) = certify(arguments, &names, now, until)?;
    if !arguments.dry_run {
        replace(key, key_pem.as_bytes(), KEY_MODE)?;
        replace(certificate, pem.as_bytes(), CERTIFICATE_MODE)?;
    }
    let signed_by = arguments.ca.as_ref().map_or_else(|| "itself".into(), |ca| ca.display().to_string());
    let renewed = Renewed {
        schema: "dwcp.cert-renew/1",
        dry_run: arguments.dry_run,
        certificate: certificate.clone(),
        key: key.clone(),
        names,
        signed_by,
        expires_at: Timestamp::from(until),
    };
    report(context, &renewed, former.is_some())
}

fn report(context: &Context, renewed: &Renewed, had_former: bool) -> Result<Code, Failure> {
    if context.json {
        output::json(renewed)?;
        return Ok(Code::Ok);
    }
    let verb = if renewed.dry_run { "would be made" } else { "made" };
    let (file, names) = (renewed.certificate.display(), renewed.names.join(", "));
    output::result(&format!(
        "{file} {verb} for {names}, signed by {}, until {}\n",
        renewed.signed_by, renewed.expires_at
    ))?;
    if renewed.dry_run {
        return Ok(Code::Ok);
    }
    if had_former {
        context.note("a running daemon uses it within 5 s; the former files end in .old");
    } else {
        context.note("there was none before: systemctl restart dwcp-manager opens api.tls_listen");
    }
    Ok(Code::Ok)
}

/// What the certificate says that is replaced.
struct Former {
    names: Vec<String>,
    is_self_signed: bool,
}

impl Former {
    /// `None` where there is none. One that cannot be read is not replaced: it may be something else.
    fn read(file: &Path) -> Result<Option<Self>, Failure> {
        let bytes = match std::fs::read(file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(file, &error)),
        };
        let wrong = || {
            Failure::general(format!("{} holds no certificate", file.display()))
                .with_hint("move it away; then a new one can be made")
        };
        let (_, pem) = x509_parser::pem::parse_x509_pem(&bytes).map_err(|_| wrong())?;
        let parsed = pem.parse_x509().map_err(|_| wrong())?;
        let alternatives = parsed.subject_alternative_name().ok().flatten();
        let names = alternatives.iter().flat_map(|extension| &extension.value.general_names);
        Ok(Some(Self {
            names: names.filter_map(name).collect(),
            is_self_signed: parsed.subject() == parsed.issuer(),
        }))
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = || <[u8; 4]>::try_from(*bytes).ok().map(std::net::IpAddr::from);
            let address = v4().or_else(|| <[u8; 16]>::try_from(*bytes).ok().map(std::net::IpAddr::from))?;
            Some(address.to_string())
        }
        _ => None,
    }
}

fn names(arguments: &Renew, former: Option<&Former>) -> Vec<String> {
    if !arguments.name.is_empty() {
        return arguments.name.clone();
    }
    if let Some(former) = former.filter(|former| !former.names.is_empty()) {
        return former.names.clone();
    }
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    host.into_iter().chain(["localhost".to_owned()]).collect()
}

/// The certificate and its key, as PEM. ECDSA on P-256: every client of TLS 1.3 has to know it (RFC 8446, section 9.1).
fn certify(
    arguments: &Renew,
    names: &[String],
    from: SystemTime,
    until: SystemTime,
) -> Result<(String, String), Failure> {
    let wrong = |error: rcgen::Error| Failure::general(format!("no certificate could be made: {error}"));
    let mut params = CertificateParams::default();
    for name in names {
        params.subject_alt_names.push(alternative(name)?);
    }
    if let Some(first) = names.first() {
        params.distinguished_name.push(rcgen::DnType::CommonName, first.as_str());
    }
    // Clocks of clients may be a little behind.
    params.not_before = (from - CLOCK_SLACK).into();
    params.not_after = until.into();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().map_err(wrong)?;
    let certificate = match (&arguments.ca, &arguments.ca_key) {
        (Some(ca), Some(ca_key)) => {
            let signer = KeyPair::from_pem(&read(ca_key)?).map_err(|_| not_pem(ca_key, "private key"))?;
            let authority = Issuer::from_ca_cert_pem(&read(ca)?, signer)
                .map_err(|_| not_pem(ca, "certificate of an authority"))?;
            params.signed_by(&key, &authority).map_err(wrong)?
        }
        _ => params.self_signed(&key).map_err(wrong)?,
    };
    Ok((certificate.pem(), key.serialize_pem()))
}

fn alternative(name: &str) -> Result<SanType, Failure> {
    if let Ok(address) = name.parse() {
        return Ok(SanType::IpAddress(address));
    }
    let wrong = || Failure::usage(format!("--name: '{name}' is no host name and no address"));
    let fits = (1..=253).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-._*".contains(c));
    if !fits {
        return Err(wrong());
    }
    Ok(SanType::DnsName(name.try_into().map_err(|_| wrong())?))
}

/// Puts a new file in place of the former one, which is kept. Owner and group stay, so that the daemon can read it.
fn replace(file: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    write_new(file, bytes, mode).map_err(|error| unusable(file, &error))
}

fn write_new(file: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let (temporary, kept) = (with_ending(file, ".new"), with_ending(file, ".old"));
    remove(&temporary)?;
    let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let owner = std::fs::metadata(file).or_else(|_| std::fs::metadata(directory))?;
    let own = new.metadata()?;
    if (owner.uid(), owner.gid()) != (own.uid(), own.gid()) {
        std::os::unix::fs::fchown(&new, Some(owner.uid()), Some(owner.gid()))?;
    }
    new.write_all(bytes)?;
    new.set_permissions(std::fs::Permissions::from_mode(mode))?;
    new.sync_all()?;
    if file.exists() {
        remove(&kept)?;
        std::fs::hard_link(file, &kept)?;
    }
    std::fs::rename(&temporary, file)?;
    File::open(directory)?.sync_all()
}

fn remove(file: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn with_ending(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn read(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|error| unusable(file, &error))
}

fn unusable(file: &Path, error: &std::io::Error) -> Failure {
    let failure = Failure::general(format!("{}: {error}", file.display()));
    if error.kind() == std::io::ErrorKind::PermissionDenied {
        return Failure { code: Code::Permission, ..failure }.with_hint("use sudo");
    }
    failure
}

fn not_pem(file: &Path, what: &str) -> Failure {
    Failure::general(format!("{} holds no usable {what} (PEM)", file.display()))
}

/// The group may read it: the daemon is in it, and runs as nobody's root.
const KEY_MODE: u32 = 0o640;
const CERTIFICATE_MODE: u32 = 0o644;
const CLOCK_SLACK: Duration = Duration::from_secs(3600);
