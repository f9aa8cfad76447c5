//! The node itself: its configuration, its key, its daemon, its peers.
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use dwcp_api::client::Client;
use dwcp_api::{
    CertificateFinding, CertificateList, CertificateVerdict, FeatureState, Health, HealthStatus, KernelEntry,
    KernelReport, Status,
};
use dwcp_config::{Config, Findings, Loaded};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{Check, Verdict};
use crate::context::Context;
use crate::exit::Failure;

pub(super) fn config(config: &Result<Loaded, Findings>) -> Check {
    match config {
        Ok(loaded) if loaded.files.is_empty() => Check::ok("config", "no file: defaults are used"),
        Ok(loaded) => {
            let files: Vec<String> = loaded.files.iter().map(|file| file.display().to_string()).collect();
            Check::ok("config", format!("{}: valid", files.join(", ")))
        }
        Err(findings) => Check::fail("config", findings.to_string(), "correct it, then dwcp config validate"),
    }
}

pub(super) fn identity(state_directory: &Path) -> Check {
    let key = state_directory.join(KEY_NAME);
    let metadata = match key.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Check::ok("identity", format!("{}: not yet; made at the first start", key.display()));
        }
        Err(error) => return Check::skipped("identity", format!("{}: {error}", key.display())),
    };
    let mode = metadata.permissions().mode() & 0o7777;
    if !metadata.is_file() {
        return Check::fail(
            "identity",
            format!("{} is not a regular file", key.display()),
            "restore it from a backup",
        );
    }
    if mode & 0o077 != 0 {
        let evidence = format!("{} has mode {mode:04o}: others may use the node's key", key.display());
        return Check::fail("identity", evidence, format!("chmod 0600 {}", key.display()));
    }
    Check::ok("identity", format!("{}, mode {mode:04o}", key.display()))
}

/// What the daemon says about itself.
pub(super) struct Daemon {
    endpoint: String,
    answer: Result<(Status, Health), Failure>,
    /// An older daemon has none.
    kernel: Option<KernelReport>,
    /// The same.
    certificates: Option<CertificateList>,
}

impl Daemon {
    pub(super) async fn ask(context: &Context) -> Result<Self, Failure> {
        let client = context.client()?;
        let endpoint = client.endpoint().to_string();
        let answer = ask(&client).await;
        let (kernel, certificates) = match &answer {
            Ok(_) => (client.kernel().await.ok(), client.certificates().await.ok()),
            Err(_) => (None, None),
        };
        Ok(Self { endpoint, answer, kernel, certificates })
    }

    pub(super) fn is_reachable(&self) -> bool {
        self.answer.is_ok()
    }

    pub(super) fn dataplane_pid(&self) -> Option<u32> {
        self.answer.as_ref().ok().and_then(|(status, _)| status.dataplane.pid)
    }

    pub(super) fn checks(&self) -> Vec<Check> {
        let (status, health) = match &self.answer {
            Ok(answer) => answer,
            Err(failure) => {
                let next = "systemctl start dwcp, or dwcp server";
                return vec![
                    Check::fail("daemon", failure.message.clone(), next),
                    Check::skipped("dataplane", "the daemon knows"),
                ];
            }
        };
        let mut checks = vec![
            Check::ok("daemon", format!("answers at {}, version {}", self.endpoint, status.build_version)),
            health_check(health),
            dataplane(status),
        ];
        for feature in &status.dataplane.features {
            let id = format!("feature.{}", feature.name);
            checks.push(match feature.state {
                FeatureState::On => Check::ok(id, format!("on: {}", feature.reason)),
                FeatureState::Off => Check::ok(id, format!("off by configuration: {}", feature.reason)),
                FeatureState::Unavailable => Check::warn(
                    id,
                    format!("unavailable: {}", feature.reason),
                    "see the checks of the host above",
                ),
            });
        }
        checks.extend(self.kernel.iter().flat_map(|report| &report.entries).filter_map(in_kernel));
        let findings = self.certificates.iter().flat_map(|list| &list.findings);
        checks.extend(findings.map(certificate));
        checks
    }
}

fn certificate(finding: &CertificateFinding) -> Check {
    let verdict = match finding.verdict {
        CertificateVerdict::Ok => Verdict::Ok,
        CertificateVerdict::Warn => Verdict::Warn,
        CertificateVerdict::Fail => Verdict::Fail,
    };
    let check = Check::new(format!("https.{}", finding.id), verdict, finding.detail.clone());
    Check { next: finding.next.clone(), ..check }
}

/// What of the kernel's part concerns an operator; the rest is in `dwcp debug ebpf`.
fn in_kernel(entry: &KernelEntry) -> Option<Check> {
    match entry.kind.as_str() {
        "trouble" => Some(Check::warn(
            format!("kernel.{}", entry.name),
            entry.detail.clone(),
            "dwcp debug ebpf shows all of it",
        )),
        "guard" | "departure" | "pins" => {
            Some(Check::ok(format!("kernel.{}", entry.kind), format!("{}: {}", entry.name, entry.detail)))
        }
        _ => None,
    }
}

async fn ask(client: &Client) -> Result<(Status, Health), Failure> {
    Ok((client.status().await?, client.health().await?))
}

fn health_check(health: &Health) -> Check {
    let mut evidence = health.status.name().to_owned();
    if !health.unhealthy_components.is_empty() {
        evidence.push_str(&format!(": {}", health.unhealthy_components.join(", ")));
    }
    if let Some(error) = &health.error {
        evidence.push_str(&format!(" ({error})"));
    }
    match health.status {
        HealthStatus::Healthy => Check::ok("health", evidence),
        HealthStatus::Degraded => Check::warn("health", evidence, "see the daemon's log"),
        HealthStatus::Unhealthy => Check::fail("health", evidence, "see the daemon's log"),
    }
}

fn dataplane(status: &Status) -> Check {
    let dataplane = &status.dataplane;
    if !dataplane.connected {
        return Check::fail(
            "dataplane",
            format!("not connected, {} restarts seen", dataplane.restarts),
            "systemctl restart dwcp-dataplane, or see what dwcp server says",
        );
    }
    Check::ok(
        "dataplane",
        format!("connected, {} workers, {} restarts seen", dataplane.workers, dataplane.restarts),
    )
}

/// Whether each peer's port answers; all are asked at once.
pub(super) async fn peers(config: &Config) -> Vec<Check> {
    let mut asked = JoinSet::new();
    for (number, peer) in config.peers.iter().enumerate() {
        let (name, address) = (peer.name.clone(), peer.address.clone());
        asked.spawn(async move { (number, peer_check(&name, &address).await) });
    }
    let mut checks = asked.join_all().await;
    checks.sort_by_key(|(number, _)| *number);
    checks.into_iter().map(|(_, check)| check).collect()
}

async fn peer_check(name: &str, address: &str) -> Check {
    let id = format!("peer.{name}");
    if address.is_empty() {
        return Check::ok(id, "dials this node; nothing to ask");
    }
    let why = match tokio::time::timeout(PEER_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(_connection)) => return Check::ok(id, format!("{address} accepts connections")),
        Ok(Err(error)) => error.to_string(),
        Err(_elapsed) => format!("no answer within {} s", PEER_TIMEOUT.as_secs()),
    };
    Check::fail(id, format!("{address}: {why}"), format!("check that {name} runs, and the firewalls between"))
}

/// In the state directory; the dataplane makes it.
const KEY_NAME: &str = "identity.pem";
const PEER_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_others_may_read_fails() {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join(KEY_NAME);
        assert_eq!(identity(directory.path()).verdict, Verdict::Ok);
        std::fs::write(&key, "secret").unwrap();
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(identity(directory.path()).verdict, Verdict::Ok);
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o640)).unwrap();
        let check = identity(directory.path());
        assert_eq!(check.verdict, Verdict::Fail);
        assert!(check.next.unwrap().starts_with("chmod 0600 "));
    }

    #[tokio::test]
    async fn peers_are_asked_and_reported_in_order() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let closed_address = closed.local_addr().unwrap().to_string();
        drop(closed);
        let peer = |name: &str, address: &str| dwcp_config::Peer {
            name: name.to_owned(),
            address: address.to_owned(),
            ..dwcp_config::Peer::default()
        };
        let config = Config {
            peers: vec![peer("berlin", &closed_address), peer("oslo", &address), peer("rome", "")],
            ..Config::default()
        };
        let verdicts: Vec<_> =
            peers(&config).await.into_iter().map(|check| (check.id, check.verdict)).collect();
        assert_eq!(
            verdicts,
            [("berlin", Verdict::Fail), ("oslo", Verdict::Ok), ("rome", Verdict::Ok)]
                .map(|(name, verdict)| (format!("peer.{name}"), verdict))
        );
    }
}
