//! Says what the files of the HTTPS interface hold and what is wrong with them, before a client finds out.
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use dwcp_api::{
    CERTIFICATE_WARNING_DAYS, CertificateFigures, CertificateFinding, CertificateList, CertificateVerdict,
    PathText, Timestamp,
};
use dwcp_sys::identity::Fingerprint;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use super::{Files, InUse, alternatives, chain};

/// Looks at every file. `in_use` is what the listener has read; empty where it does not listen.
pub(crate) fn judge(files: &Files, in_use: &[InUse], now_ms: u64) -> CertificateList {
    let mut found = Found { certificates: Vec::new(), findings: Vec::new() };
    if !files.certificate.exists() && in_use.is_empty() {
        let detail = format!("{} does not exist: there is no HTTPS", files.certificate.display());
        found.findings.push(finding("certificate", CertificateVerdict::Ok, detail, None));
    } else {
        found.judge_pair(files);
        found.judge_key_mode(&files.key);
        found.judge_file("server", &files.certificate, 1, in_use, now_ms);
        if let Some(clients) = &files.clients {
            found.judge_file("ca", &clients.ca, AUTHORITIES_SHOWN, in_use, now_ms);
        }
    }
    let Found { certificates, findings } = found;
    CertificateList { schema: CertificateList::SCHEMA, serving: !in_use.is_empty(), certificates, findings }
}

/// What was found so far.
struct Found {
    certificates: Vec<CertificateFigures>,
    findings: Vec<CertificateFinding>,
}

impl Found {
    fn judge_pair(&mut self, files: &Files) {
        self.findings.push(match files.read() {
            Ok(_) => {
                let detail = format!("{} and its key belong together", files.certificate.display());
                finding("certificate", CertificateVerdict::Ok, detail, None)
            }
            Err(error) => finding(
                "certificate",
                CertificateVerdict::Fail,
                error.to_string(),
                Some("put the right files there, or make new ones: dwcp cert renew"),
            ),
        });
    }

    fn judge_key_mode(&mut self, key: &Path) {
        // That it cannot be read is said by then.
        let Ok(metadata) = std::fs::metadata(key) else { return };
        let mode = metadata.permissions().mode() & 0o7777;
        let (file, shown) = (key.display(), format!("mode {mode:04o}"));
        self.findings.push(if mode & 0o007 == 0 {
            finding("key.mode", CertificateVerdict::Ok, format!("{file}: {shown}"), None)
        } else {
            let detail = format!("{file} has {shown}: every user of this host may use the key");
            finding("key.mode", CertificateVerdict::Fail, detail, Some("chmod 0640, and make a new key"))
        });
    }

    fn judge_file(&mut self, what: &'static str, file: &Path, most: usize, in_use: &[InUse], now_ms: u64) {
        for der in chain(file).unwrap_or_default().iter().take(most) {
            let Some(figures) = figures(what, file, der, in_use, now_ms) else { continue };
            self.judge_one(&figures, !in_use.is_empty(), now_ms);
            self.certificates.push(figures);
        }
    }

    fn judge_one(&mut self, figures: &CertificateFigures, is_serving: bool, now_ms: u64) {
        let what = figures.name.as_str();
        let id = |part: &str| format!("{what}.{part}");
        let (verdict, detail) = expiry(figures, now_ms);
        let next = match (verdict, what) {
            (CertificateVerdict::Ok, _) => None,
            (_, "ca") => Some("put the new one of the authority into security.tls.ca_file"),
            (..) => Some("dwcp cert renew, or put the new files there; no restart is needed"),
        };
        self.findings.push(finding(&id("expiry"), verdict, detail, next));
        if what == "server" && figures.names.is_empty() {
            let detail = format!("{} names no host: clients look at nothing but the names", figures.subject);
            let next = Some("dwcp cert renew --name HOST");
            self.findings.push(finding(&id("names"), CertificateVerdict::Warn, detail, next));
        }
        if is_serving && !figures.in_use {
            let detail = "the file is newer than what is in use".to_owned();
            let next = Some("wait 5 s; where it stays so, `dwcp logs --level error` says why");
            self.findings.push(finding(&id("in_use"), CertificateVerdict::Warn, detail, next));
        }
    }
}

fn expiry(figures: &CertificateFigures, now_ms: u64) -> (CertificateVerdict, String) {
    let (subject, days) = (&figures.subject, figures.days_left);
    if figures.expires_at.unix_ms() <= now_ms {
        return (CertificateVerdict::Fail, format!("{subject} has expired at {}", figures.expires_at));
    }
    if figures.valid_from.unix_ms() > now_ms {
        let detail = format!("{subject} is valid from {} on: compare the clocks", figures.valid_from);
        return (CertificateVerdict::Fail, detail);
    }
    let verdict =
        if days < CERTIFICATE_WARNING_DAYS { CertificateVerdict::Warn } else { CertificateVerdict::Ok };
    (verdict, format!("{subject} expires in {days} days, at {}", figures.expires_at))
}

fn figures(
    what: &'static str,
    file: &Path,
    der: &[u8],
    in_use: &[InUse],
    now_ms: u64,
) -> Option<CertificateFigures> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).ok()?;
    let fingerprint = Fingerprint::of_certificate(der);
    let validity = parsed.validity();
    let (from_s, until_s) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    let time = |s: i64| Timestamp::from_unix_ms(u64::try_from(s).unwrap_or(0).saturating_mul(1000));
    let now_s = i64::try_from(now_ms / 1000).unwrap_or(i64::MAX);
    let text = |bytes: String| crate::jobs::clean(bytes.as_bytes());
    Some(CertificateFigures {
        name: what.to_owned(),
        file: PathText::new(file.as_os_str().as_bytes()).ok()?,
        subject: text(parsed.subject().to_string()),
        issuer: text(parsed.issuer().to_string()),
        names: names(&parsed),
        valid_from: time(from_s),
        expires_at: time(until_s),
        days_left: until_s.saturating_sub(now_s).div_euclid(DAY_S),
        fingerprint: fingerprint.to_string(),
        in_use: in_use.iter().any(|one| one.fingerprint == fingerprint),
    })
}

fn names(parsed: &X509Certificate<'_>) -> Vec<String> {
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(crate::jobs::clean(name.as_bytes())),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    };
    alternatives(parsed).iter().filter_map(name).take(NAMES_SHOWN).collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    v4().or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

fn finding(id: &str, verdict: CertificateVerdict, detail: String, next: Option<&str>) -> CertificateFinding {
    CertificateFinding { id: id.to_owned(), verdict, detail, next: next.map(str::to_owned) }
}

const DAY_S: i64 = 24 * 3600;
/// A file may hold all public authorities.
const AUTHORITIES_SHOWN: usize = 16;
const NAMES_SHOWN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate and its key as files, valid between these seconds.
    fn site(from_s: i64, until_s: i64) -> (tempfile::TempDir, Files) {
        let directory = tempfile::tempdir().unwrap();
        let mut params = rcgen::CertificateParams::new(["node-1.example".to_owned()]).unwrap();
        let time = |s: i64| rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(s as u64);
        (params.not_before, params.not_after) = (time(from_s), time(until_s));
        let key = rcgen::KeyPair::generate().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("server.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(path("server.key"), key.serialize_pem()).unwrap();
        std::fs::set_permissions(path("server.key"), PermissionsExt::from_mode(0o640)).unwrap();
        let mut security = dwcp_config::Config::default().security;
        (security.certificate_file, security.key_file) = (path("server.crt"), path("server.key"));
        (directory, Files::of(&security))
    }

    fn verdict(list: &CertificateList, id: &str) -> Option<CertificateVerdict> {
        list.findings.iter().find(|finding| finding.id == id).map(|finding| finding.verdict)
    }

    #[test]
    fn expiry_is_warned_of_two_weeks_before() {
        let (_directory, files) = site(1_000_000, 1_000_000 + 100 * DAY_S);
        for (day, expected) in [
            (-1, CertificateVerdict::Fail),
            (1, CertificateVerdict::Ok),
            (86, CertificateVerdict::Ok),
            (87, CertificateVerdict::Warn),
            (99, CertificateVerdict::Warn),
            (100, CertificateVerdict::Fail),
        ] {
            let now_s = 1_000_000 + day * DAY_S;
            let list = judge(&files, &[], now_s as u64 * 1000);
            assert_eq!(verdict(&list, "server.expiry"), Some(expected), "day {day}: {:?}", list.findings);
            assert_eq!(list.certificates[0].days_left, 100 - day);
            assert_eq!(list.certificates[0].names, ["node-1.example"]);
        }
    }

    #[test]
    fn what_is_wrong_with_the_files_is_named() {
        let (directory, files) = site(0, 100 * DAY_S);
        let loaded = files.read().unwrap().in_use;
        let list = judge(&files, &loaded, 1000);
        assert!(list.serving && list.certificates[0].in_use);
        assert_eq!(verdict(&list, "server.in_use"), None);
        let (other, _) = site(0, 100 * DAY_S);
        let copy = |name: &str| std::fs::copy(other.path().join(name), directory.path().join(name)).unwrap();
        copy("server.crt");
        let list = judge(&files, &loaded, 1000);
        assert_eq!(verdict(&list, "certificate"), Some(CertificateVerdict::Fail), "a foreign key");
        assert_eq!(verdict(&list, "server.in_use"), Some(CertificateVerdict::Warn));
        std::fs::set_permissions(&files.key, PermissionsExt::from_mode(0o644)).unwrap();
        assert_eq!(verdict(&judge(&files, &loaded, 1000), "key.mode"), Some(CertificateVerdict::Fail));
        std::fs::write(&files.certificate, vec![b'-'; 2 << 20]).unwrap();
        let list = judge(&files, &loaded, 1000);
        assert!(list.findings[0].detail.contains("longer than"), "{:?}", list.findings);
        std::fs::remove_file(&files.certificate).unwrap();
        assert_eq!(verdict(&judge(&files, &[], 1000), "certificate"), Some(CertificateVerdict::Ok));
        assert_eq!(verdict(&judge(&files, &loaded, 1000), "certificate"), Some(CertificateVerdict::Fail));
    }
}
