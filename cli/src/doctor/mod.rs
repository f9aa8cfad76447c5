//! `dwcp doctor`: looks at the host, the configuration and the daemon, and says for each finding what to do next. It
//! changes nothing. Facts of the host are read below a root directory, so that tests bring their own host.
mod host;
mod node;
mod ports;
mod role;

use serde::Serialize;

use crate::arguments::Doctor;
use crate::configuration;
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output::{self, Colour, Tone, plain};
use host::Host;

/// Runs every check. Exits 1 where one fails.
pub(crate) async fn run(context: &Context, arguments: &Doctor) -> Result<Code, Failure> {
    let checks = checks(context, arguments).await?;
    let failed = checks.iter().any(|check| check.verdict == Verdict::Fail);
    if context.json {
        output::json(&Report { schema: "dwcp.doctor/1", healthy: !failed, checks })?;
    } else {
        output::result(&render(&checks, context.colour))?;
    }
    Ok(if failed { Code::General } else { Code::Ok })
}

/// What `doctor --json` would print, with the usual places.
pub(crate) async fn findings(context: &Context) -> Result<impl Serialize + use<>, Failure> {
    let state_dir = "/var/lib/dwcp/state".into();
    let arguments = Doctor { config: None, state_dir, role: None, strict: false };
    let checks = checks(context, &arguments).await?;
    let healthy = checks.iter().all(|check| check.verdict != Verdict::Fail);
    Ok(Report { schema: "dwcp.doctor/1", healthy, checks })
}

async fn checks(context: &Context, arguments: &Doctor) -> Result<Vec<Check>, Failure> {
    let host = Host::new("/");
    let config = configuration::load(arguments.config.as_deref());
    let daemon = node::Daemon::ask(context).await?;
    let usual = dwcp_config::Config::default();
    let wanted = config.as_ref().map_or(&usual, |loaded| &loaded.config);

    let mut checks = host::checks(&host, daemon.dataplane_pid(), wanted);
    if let Some(role) = arguments.role {
        checks.extend(role::checks(&host, role, arguments.strict, &arguments.state_dir));
    }
    checks.push(node::config(&config));
    checks.push(node::identity(&arguments.state_dir));
    checks.extend(ports::checks(&host, wanted, daemon.is_reachable()));
    checks.extend(daemon.checks());
    checks.extend(node::peers(wanted).await);
    Ok(checks)
}

/// Answer of `doctor --json`.
#[derive(Serialize)]
struct Report {
    schema: &'static str,
    healthy: bool,
    checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    /// Stable name.
    id: String,
    verdict: Verdict,
    /// What was found.
    evidence: String,
    /// What to run or change.
    next: Option<String>,
}

/// What a finding means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// As it should be.
    Ok,
    /// Works, but could work better.
    Warn,
    /// Keeps the node from working.
    Fail,
    /// Could not be looked at.
    Skipped,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
            Self::Skipped => "skip",
        }
    }

    fn tone(self) -> Tone {
        match self {
            Self::Ok => Tone::Good,
            Self::Warn | Self::Skipped => Tone::Odd,
            Self::Fail => Tone::Bad,
        }
    }
}

impl Check {
    fn new(id: impl Into<String>, verdict: Verdict, evidence: impl Into<String>) -> Self {
        Self { id: id.into(), verdict, evidence: evidence.into(), next: None }
    }

    fn ok(id: impl Into<String>, evidence: impl Into<String>) -> Self {
        Self::new(id, Verdict::Ok, evidence)
    }

    fn warn(id: impl Into<String>, evidence: impl Into<String>, next: impl Into<String>) -> Self {
        Self { next: Some(next.into()), ..Self::new(id, Verdict::Warn, evidence) }
    }

    fn fail(id: impl Into<String>, evidence: impl Into<String>, next: impl Into<String>) -> Self {
        Self { next: Some(next.into()), ..Self::new(id, Verdict::Fail, evidence) }
    }

    fn skipped(id: impl Into<String>, evidence: impl Into<String>) -> Self {
        Self::new(id, Verdict::Skipped, evidence)
    }
}

fn render(checks: &[Check], colour: Colour) -> String {
    let width = checks.iter().map(|check| check.id.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        let word = colour.paint(check.verdict.tone(), &format!("{:<4}", check.verdict.word()));
        let id = plain(&check.id);
        for (number, line) in check.evidence.lines().enumerate() {
            let line = plain(line);
            match number {
                0 => text.push_str(&format!("{word}  {id:<width$}  {line}\n")),
                _ => text.push_str(&format!("{:width$}  {line}\n", "", width = width + 6)),
            }
        }
        if let Some(next) = &check.next {
            text.push_str(&format!("{:width$}  → {}\n", "", plain(next), width = width + 6));
        }
    }
    let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
    let (good, odd, bad) = (count(Verdict::Ok), count(Verdict::Warn), count(Verdict::Fail));
    text + &format!("\n{good} ok, {odd} could be better, {bad} failed, {} skipped\n", count(Verdict::Skipped))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_stands_below_what_was_found() {
        let checks = [
            Check::ok("kernel", "6.12"),
            Check::fail("daemon", "no answer\nat all", "dwcp server"),
            Check::skipped("x", "y"),
        ];
        let expected = "ok    kernel  6.12\nFAIL  daemon  no answer\n              at all\n              → dwcp server\n\
                        skip  x       y\n\n1 ok, 0 could be better, 1 failed, 1 skipped\n";
        assert_eq!(render(&checks, Colour::Never), expected);
    }
}
