//! `dwcp cert renew` and `dwcp config migrate`: what they make, what they keep, and what they refuse. No daemon is needed.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

struct Site(tempfile::TempDir);

impl Site {
    fn new() -> Self {
        let site = Self(tempfile::tempdir().unwrap());
        let (crt, key) = (site.path("certs/server.crt"), site.path("certs/server.key"));
        let text =
            format!("security: {{tls: {{cert_file: '{}', key_file: '{}'}}}}\n", crt.display(), key.display());
        fs::write(site.path("dwcp.yaml"), text).unwrap();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn renew(&self, more: &[&str]) -> Output {
        let config = self.path("dwcp.yaml");
        dwcp(&[&["cert", "renew", "--config", config.to_str().unwrap()], more].concat())
    }

    /// An authority's certificate and key.
    fn authority(&self) -> (String, String) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "an authority");
        let key = KeyPair::generate().unwrap();
        fs::write(self.path("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(self.path("ca.key"), key.serialize_pem()).unwrap();
        ["ca.crt", "ca.key"].map(|name| self.path(name).display().to_string()).into()
    }
}

fn dwcp(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dwcp"));
    command.env_remove("DWCP_CONFIG").args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// Issuer and alternative names, as text.
fn certificate(file: &Path) -> (String, String) {
    let bytes = fs::read(file).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(&bytes).unwrap();
    let parsed = pem.parse_x509().unwrap();
    let names = parsed.subject_alternative_name().unwrap().unwrap();
    (parsed.issuer().to_string(), format!("{:?}", names.value.general_names))
}

#[test]
fn renewing_keeps_names_and_former_files_and_lets_nobody_else_read_the_key() {
    let site = Site::new();
    let planned = site.renew(&["--dry-run", "--name", "a.example"]);
    assert!(planned.status.success() && said(&planned).contains("would be made"), "{}", said(&planned));
    assert!(!site.path("certs").exists());
    let first = site.renew(&["--name", "a.example", "--name", "10.0.0.1"]);
    assert!(first.status.success() && said(&first).contains("none before"), "{}", said(&first));
    let mode = |name: &str| fs::metadata(site.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("certs/server.key"), mode("certs/server.crt")), (0o640, 0o644));
    let (_, names) = certificate(&site.path("certs/server.crt"));
    let (former_key, former) = (site.text("certs/server.key"), site.text("certs/server.crt"));
    assert!(site.renew(&[]).status.success());
    assert_eq!(certificate(&site.path("certs/server.crt")).1, names);
    assert!(names.contains("a.example") && names.contains("[10, 0, 0, 1]"), "{names}");
    assert_ne!(site.text("certs/server.key"), former_key);
    assert_eq!(site.text("certs/server.key.old"), former_key);
    assert_eq!(site.text("certs/server.crt.old"), former);
}

#[test]
fn what_an_authority_has_signed_is_not_replaced_by_what_signs_itself() {
    let site = Site::new();
    let (ca, ca_key) = site.authority();
    let signed = site.renew(&["--name", "a.example", "--ca", &ca, "--ca-key", &ca_key]);
    assert!(signed.status.success(), "{}", said(&signed));
    assert_eq!(certificate(&site.path("certs/server.crt")).0, "CN=an authority");
    let before = site.text("certs/server.crt");
    let refused = site.renew(&[]);
    assert!(
        refused.status.code() == Some(2) && said(&refused).contains("--self-signed"),
        "{}",
        said(&refused)
    );
    assert_eq!(site.text("certs/server.crt"), before);
    assert!(site.renew(&["--self-signed"]).status.success());
}

#[test]
fn what_is_no_certificate_is_left_alone() {
    let site = Site::new();
    fs::create_dir(site.path("certs")).unwrap();
    fs::write(site.path("certs/server.crt"), "something else").unwrap();
    let output = site.renew(&[]);
    assert!(output.status.code() == Some(1) && said(&output).contains("no certificate"), "{}", said(&output));
    assert_eq!(site.text("certs/server.crt"), "something else");
    fs::remove_file(site.path("certs/server.crt")).unwrap();
    for name in ["", "a b", "a/b", &"x".repeat(300)] {
        assert_eq!(site.renew(&["--name", name]).status.code(), Some(2), "{name}");
    }
    let (ca, _) = site.authority();
    let output = site.renew(&["--ca", &ca, "--ca-key", &ca]);
    assert!(output.status.code() == Some(1) && said(&output).contains("private key"), "{}", said(&output));
    assert!(!site.path("certs/server.crt").exists() && !site.path("certs/server.key").exists());
}

#[test]
fn an_old_configuration_is_rewritten_and_what_is_left_out_is_said() {
    let site = Site::new();
    let old = site.path("old.yaml").display().to_string();
    fs::write(&old, "dwcp:\n  transport: {streams: 512}\n  prediction: {enabled: true}\n").unwrap();
    let printed = dwcp(&["config", "migrate", &old]);
    assert_eq!(String::from_utf8_lossy(&printed.stdout), "transport:\n  max_streams: 512\n");
    assert!(String::from_utf8_lossy(&printed.stderr).contains("left out: "), "{}", said(&printed));
    assert!(dwcp(&["config", "migrate", &old, "--output", &old]).status.success());
    assert_eq!(site.text("old.yaml"), "transport:\n  max_streams: 512\n");
    assert!(site.text("old.yaml.old").starts_with("dwcp:"));
    assert!(dwcp(&["config", "validate", &old]).status.success());
    let absent = dwcp(&["config", "migrate", "/nonexistent.yaml"]);
    assert!(
        absent.status.code() == Some(78) && said(&absent).contains("cannot be opened"),
        "{}",
        said(&absent)
    );
}
