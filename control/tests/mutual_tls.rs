//! Clients of the HTTPS interface that show certificates: whose count, for what, and what ends that.
mod support;

use rustls::pki_types::CertificateDer;
use support::https::{Authority, Shown, ask_as, secure};
use support::{Control, Site, wait_for};

const STATUS: &str = "/api/v1/dwcp/status";
const MODE: &str = "/api/v1/dwcp/mode";

fn mutual(site: &Site, authority: &Authority, more: &str) -> CertificateDer<'static> {
    std::fs::write(site.path("ca.crt"), &authority.pem).unwrap();
    let subjects = "['CN=node-*.example', 'admin:CN=ops.example']";
    let trusted = secure(
        site,
        &format!(
            ", enable_mtls: true, authentication: {{allowed_subjects: {subjects}{more}}}, rate_limit: 0"
        ),
    );
    // `secure` writes the section `tls` on one line.
    let text = std::fs::read_to_string(site.path("dwcp.yaml")).unwrap();
    let ca = format!("tls: {{ca_file: '{}', ", site.path("ca.crt").display());
    std::fs::write(site.path("dwcp.yaml"), text.replace("tls: {", &ca)).unwrap();
    trusted
}

/// The status of an answer; `None` where there was no connection.
fn code(
    control: &Control,
    trusted: &CertificateDer<'static>,
    shown: Option<&Shown>,
    request: (&str, &str, &str),
    bearer: &str,
) -> Option<u16> {
    let (method, path, body) = request;
    ask_as(control, trusted, shown, method, path, bearer, body).ok().map(|answer| answer.0)
}

#[test]
fn certificates_stand_for_roles_and_none_gets_in_without_one() {
    let site = Site::new();
    let authority = Authority::new();
    let trusted = mutual(&site, &authority, "");
    let control = site.start();
    let code =
        |shown: Option<&Shown>, request, bearer: &str| code(&control, &trusted, shown, request, bearer);
    let (get, put) = (("GET", STATUS, ""), ("PUT", MODE, r#"{"mode": "internet"}"#));
    let node = authority.vouch("node-1.example", &["node-1.example"], 2100);
    let ops = authority.vouch("ops.example", &[], 2100);
    assert_eq!(code(Some(&node), get, ""), Some(200));
    assert_eq!(code(Some(&node), put, ""), Some(403));
    assert_eq!(code(Some(&ops), put, ""), Some(200));

    assert_eq!(code(None, ("GET", "/live", ""), ""), None, "no certificate, and served");
    let foreign = Authority::new().vouch("ops.example", &[], 2100);
    assert_eq!(code(Some(&foreign), get, ""), None, "a foreign authority");
    let expired = authority.vouch("ops.example", &[], 2001);
    assert_eq!(code(Some(&expired), get, ""), None, "an expired certificate");
    for (name, dns) in
        [("guest.example", &[][..]), ("node-1.evil.example", &[]), ("node-1.example", &["other.example"])]
    {
        let stranger = authority.vouch(name, dns, 2100);
        assert_eq!(code(Some(&stranger), get, ""), Some(401), "{name} {dns:?}");
    }
    // What is said counts, also where the certificate alone would have been enough.
    assert_eq!(code(Some(&ops), get, "dwcp_00_00"), Some(401));
    let key = control.ask("POST", "/api/v1/auth/keys", r#"{"name": "a", "role": "read"}"#).json();
    let key = key["key"].as_str().unwrap();
    assert_eq!(code(Some(&ops), put, key), Some(403));

    let audit = control.get("/api/v1/dwcp/audit").json();
    let entries = audit["entries"].as_array().unwrap();
    assert!(entries.iter().any(|entry| entry["who"] == "certificate ops.example"), "{audit}");
    let metrics = control.get("/metrics").text();
    assert!(metrics.contains("\ndwcp_tls_certificate_expiry_timestamp_seconds{cert=\"ca\"} "), "{metrics}");
}

#[test]
fn subjects_are_changed_at_once_and_authorities_with_their_file() {
    let site = Site::new();
    let authority = Authority::new();
    let trusted = mutual(&site, &authority, ", client_cert_required: false");
    let control = site.start();
    let get = ("GET", STATUS, "");
    let code = |shown: Option<&Shown>| code(&control, &trusted, shown, get, "");
    let node = authority.vouch("node-1.example", &[], 2100);
    assert_eq!(code(Some(&node)), Some(200));
    assert_eq!(code(None), Some(401), "no certificate is needed, but something is");
    let nobody = r#"{"security.authentication.allowed_subjects": []}"#;
    let answer = control.ask("PATCH", "/api/v1/dwcp/config", nobody);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(code(Some(&node)), Some(401));
    let again = r#"{"security.authentication.allowed_subjects": null}"#;
    assert_eq!(control.ask("PATCH", "/api/v1/dwcp/config", again).status, 200);
    assert_eq!(code(Some(&node)), Some(200));

    let next = Authority::new();
    std::fs::write(site.path("ca.crt"), &next.pem).unwrap();
    wait_for("the former authority to count no longer", || code(Some(&node)).is_none().then_some(()));
    assert_eq!(code(Some(&next.vouch("node-1.example", &[], 2100))), Some(200));
    let list = control.get("/api/v1/dwcp/certificates").json();
    let names: Vec<_> = list["certificates"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["server", "ca"]);
    assert!(list["certificates"].as_array().unwrap().iter().all(|one| one["in_use"] == true), "{list}");
}

#[test]
fn an_authority_that_is_none_keeps_control_from_starting_and_is_named() {
    let site = Site::new();
    mutual(&site, &Authority::new(), "");
    for text in ["", "no certificate"] {
        std::fs::write(site.path("ca.crt"), text).unwrap();
        let output = site.command().output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && said.contains("ca.crt"), "{said}");
    }
}
