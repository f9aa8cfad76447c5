//! `dwcp cert`: what the certificates of the HTTPS interface say, and what is wrong with them.
use dwcp_api::{CertificateFigures, CertificateFinding, CertificateList, CertificateVerdict};

use super::renew;
use crate::arguments::Cert;
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output::{self, Colour, Tone, plain};
use crate::table::{Side, Table};

pub(super) async fn run(context: &Context, command: Cert) -> Result<Code, Failure> {
    if let Cert::Renew(arguments) = command {
        return renew::run(context, &arguments);
    }
    let mut list = context.client()?.certificates().await?;
    if let Cert::Show { name: Some(name) } = &command {
        list.certificates.retain(|certificate| certificate.name == *name);
    }
    let is_check = matches!(command, Cert::Check);
    if context.json {
        output::json(&list)?;
    } else if is_check {
        output::result(&findings(&list.findings, context.colour))?;
    } else if list.certificates.is_empty() {
        context.note("there is none: `dwcp cert check` says why, `dwcp cert renew` makes one");
    } else {
        let is_list = matches!(command, Cert::List);
        output::result(&if is_list { table(&list) } else { whole(&list.certificates) })?;
    }
    let is_bad = list.findings.iter().any(|finding| finding.verdict == CertificateVerdict::Fail);
    Ok(if is_check && is_bad { Code::General } else { Code::Ok })
}

fn table(list: &CertificateList) -> String {
    let columns = [
        ("NAME", Side::Left),
        ("EXPIRES", Side::Left),
        ("DAYS", Side::Right),
        ("IN USE", Side::Left),
        ("SUBJECT", Side::Left),
    ];
    let mut table = Table::new(&columns);
    for certificate in &list.certificates {
        table.row([
            plain(&certificate.name),
            certificate.expires_at.to_string(),
            certificate.days_left.to_string(),
            if certificate.in_use { "yes" } else { "no" }.to_owned(),
            plain(&certificate.subject),
        ]);
    }
    table.render()
}

fn whole(certificates: &[CertificateFigures]) -> String {
    let one = |certificate: &CertificateFigures| {
        let names = if certificate.names.is_empty() { "none".into() } else { certificate.names.join(", ") };
        let lines = [
            ("Name", certificate.name.clone()),
            ("File", certificate.file.to_string()),
            ("Subject", certificate.subject.clone()),
            ("Issuer", certificate.issuer.clone()),
            ("For", names),
            ("Valid from", certificate.valid_from.to_string()),
            ("Expires", format!("{}, in {} days", certificate.expires_at, certificate.days_left)),
            ("Fingerprint", certificate.fingerprint.clone()),
            ("In use", if certificate.in_use { "yes" } else { "no" }.to_owned()),
        ];
        lines.map(|(name, text)| format!("{:<13}{}\n", format!("{name}:"), plain(&text))).concat()
    };
    certificates.iter().map(one).collect::<Vec<_>>().join("\n")
}

fn findings(findings: &[CertificateFinding], colour: Colour) -> String {
    let width = findings.iter().map(|finding| finding.id.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let (word, tone) = match finding.verdict {
            CertificateVerdict::Ok => ("ok  ", Tone::Good),
            CertificateVerdict::Warn => ("warn", Tone::Odd),
            CertificateVerdict::Fail => ("FAIL", Tone::Bad),
        };
        let (word, id) = (colour.paint(tone, word), plain(&finding.id));
        text.push_str(&format!("{word}  {id:<width$}  {}\n", plain(&finding.detail)));
        if let Some(next) = &finding.next {
            text.push_str(&format!("{:width$}  → {}\n", "", plain(next), width = width + 6));
        }
    }
    text
}
