//! The verdict as the document that probes read: one shape, one length. Called for each round of checks.
use std::time::Duration;

use dwcp_api::{ComponentHealth, ComponentState, Components, Health, HealthStatus};
use dwcp_policy::{Component, Overall};

use super::judge::Verdict;
use super::words::Translate;

impl Verdict {
    fn state(&self, wanted: Component) -> (ComponentState, Option<String>) {
        let found = self.reports.iter().find(|(component, ..)| *component == wanted);
        found.map_or((ComponentState::Disabled, None), |(_, state, detail)| {
            (*state, detail.as_deref().map(|text| cut(text, DETAIL_BYTES_MAX)))
        })
    }

    pub(super) fn document(&self, version: &str, enabled: bool, uptime: Duration) -> Health {
        let long = |component| {
            let (status, detail) = self.state(component);
            ComponentHealth { status, detail }
        };
        let bad = |state: ComponentState| !state.policy().is_fine();
        let unhealthy: Vec<String> = self
            .reports
            .iter()
            .filter(|(_, state, _)| bad(*state))
            .map(|(component, ..)| component.name().into())
            .collect();
        let failed = self.reports.iter().find(|(_, state, _)| *state == ComponentState::Unhealthy);
        let error = (self.overall == Overall::Unhealthy).then(|| match failed {
            Some((component, _, detail)) => cut(
                &format!("{} failed: {}", component.name(), detail.as_deref().unwrap_or("")),
                DETAIL_BYTES_MAX,
            ),
            None => "the circuit breaker is open".into(),
        });
        Health {
            status: match self.overall {
                Overall::Healthy => HealthStatus::Healthy,
                Overall::Degraded => HealthStatus::Degraded,
                Overall::Unhealthy => HealthStatus::Unhealthy,
            },
            version: cut(version, 64),
            build_version: env!("CARGO_PKG_VERSION").into(),
            enabled,
            uptime_seconds: uptime.as_secs(),
            components_healthy: unhealthy.is_empty(),
            unhealthy_components: unhealthy,
            recovery_in_progress: self
                .reports
                .iter()
                .any(|(_, state, _)| *state == ComponentState::Recovering),
            circuit_breaker: self.breaker,
            components: Components {
                transport: self.state(Component::Transport).0,
                compression: self.state(Component::Compression).0,
                circuit_breaker: self.breaker,
                amst_transport: long(Component::Transport),
                hde_compression: long(Component::Compression),
                pba_prediction: long(Component::Prediction),
                ass_sync: long(Component::Sync),
                acp_consensus: long(Component::Consensus),
                itp_placement: long(Component::Placement),
            },
            error,
            parts: None,
            recent_errors: None,
            configuration: None,
            performance: None,
        }
    }
}

/// Probes such as ab count an answer of another length as a failure: the body never changes its own.
pub(super) fn padded(health: &Health) -> Vec<u8> {
    let mut body = serde_json::to_vec(health).unwrap_or_else(|_| b"{}".to_vec());
    // All texts in it are cut, so that it fits; if it did not, a longer answer is better than half a one.
    body.resize(body.len().max(HEALTH_BYTES - 1), b' ');
    body.push(b'\n');
    body
}

/// A bounded text whose JSON is as long as itself.
fn cut(text: &str, bytes_max: usize) -> String {
    let plain: String = text
        .chars()
        .map(|c| match c {
            '"' => '\'',
            '\\' => '/',
            c if c.is_control() => ' ',
            c => c,
        })
        .collect();
    if plain.len() <= bytes_max {
        return plain;
    }
    format!("{}…", &plain[..plain.floor_char_boundary(bytes_max)])
}

/// Length of the answer to `/health`, a multiple of 512 with room for the longest one.
const HEALTH_BYTES: usize = 2560;
const DETAIL_BYTES_MAX: usize = 160;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_answer_fits() {
        for text in ["\u{1}", "\"", "x", "\\", "ä"] {
            let detail = Some(text.repeat(5000));
            let report = |component| (component, ComponentState::Recovering, detail.clone());
            let verdict = Verdict {
                overall: Overall::Unhealthy,
                breaker: dwcp_api::BreakerState::HalfOpen,
                reports: Component::ALL.map(report).to_vec(),
                is_draining: false,
                parts: Vec::new(),
            };
            let mut long = verdict.document(&"9".repeat(500), true, Duration::from_secs(u64::MAX));
            long.error = Some(cut(&text.repeat(5000), DETAIL_BYTES_MAX));
            assert_eq!(padded(&long).len(), HEALTH_BYTES);
        }
        assert_eq!(crate::health::Rendered::starting().body.len(), HEALTH_BYTES);
    }
}
