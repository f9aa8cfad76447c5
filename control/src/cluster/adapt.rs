//! Asks the policy now and then whether the cluster should use another protocol, and puts its answer to the members.
//! Only the member with the lowest number among those that are reached does: all see nearly the same, and one voice is
//! enough.
use std::sync::Arc;
use std::time::{Duration, Instant};

use dwcp_abi::wire::{ReplicatedCommand, ReplicatedProtocol};
use dwcp_config::Mode;
use dwcp_consensus::ProtocolKind;
use dwcp_policy::{ClusterSight, FaultAssumption, ProtocolChoice, ProtocolLimits, ProtocolSelector};

use super::Running;
use crate::app::App;

/// Looks until the process ends.
pub(crate) async fn run(app: Arc<App>) {
    let start = Instant::now();
    let mut selector = ProtocolSelector::new(ProtocolLimits::default(), ProtocolChoice::Pbft);
    let mut before: Option<(Instant, u64)> = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let Ok(running) = app.cluster.member() else {
            before = None;
            continue;
        };
        let now = Instant::now();
        let applied = running.view().applied.iter().sum();
        let rate = before.map(|(at, count)| rate(now - at, count, applied));
        before = Some((now, applied));
        let Some(commands_per_s) = rate.filter(|_| app.settings().config.consensus.adaptive_mode) else {
            continue;
        };
        if let Some(choice) = look(&app, &running, &mut selector, commands_per_s, now - start) {
            change(&app, &running, choice).await;
        }
    }
}

fn rate(elapsed: Duration, before: u64, now: u64) -> f64 {
    now.saturating_sub(before) as f64 / elapsed.as_secs_f64().max(0.001)
}

fn look(
    app: &App,
    running: &Running,
    selector: &mut ProtocolSelector,
    commands_per_s: f64,
    now: Duration,
) -> Option<ProtocolChoice> {
    let view = running.view();
    let plan = view.plan?;
    selector.handle_present(choice(plan.protocol), now);
    // Two may speak where a connection stands in one direction only: the second wish changes nothing.
    let reached = running.reached();
    if plan.members.iter().any(|member| member.replica < running.me && reached.contains(&member.replica)) {
        return None;
    }
    let faults = match app.settings().config.mode {
        Mode::Datacenter => FaultAssumption::Crash,
        Mode::Hybrid | Mode::Internet => FaultAssumption::Byzantine,
    };
    selector.handle_sight(&ClusterSight { faults, members: plan.members.len(), commands_per_s }, now)
}

async fn change(app: &App, running: &Running, choice: ProtocolChoice) {
    let settings = app.settings();
    let consensus = &settings.config.consensus;
    let protocol = match choice {
        ProtocolChoice::Pbft => ProtocolKind::Pbft,
        ProtocolChoice::Bullshark => ProtocolKind::Bullshark,
        ProtocolChoice::TPbft => ProtocolKind::TPbft,
        ProtocolChoice::ProBft => ProtocolKind::ProBft,
        ProtocolChoice::Raft => ProtocolKind::Raft,
    };
    let rotates = protocol == ProtocolKind::TPbft;
    let command = ReplicatedProtocol {
        protocol: protocol as u8,
        positions: if rotates { u64::from(consensus.epoch_positions) } else { 0 },
        seats: if rotates { consensus.committee_size } else { 0 },
    };
    let wanted = protocol.name();
    match running.submit(&ReplicatedCommand::Protocol(command), None).await {
        Ok(_) => tracing::info!(component = "acp", wanted, "another protocol suits the cluster better"),
        Err(error) => tracing::warn!(component = "acp", wanted, %error, "change of protocol not decided"),
    }
}

fn choice(protocol: ProtocolKind) -> ProtocolChoice {
    match protocol {
        ProtocolKind::Pbft => ProtocolChoice::Pbft,
        ProtocolKind::Bullshark => ProtocolChoice::Bullshark,
        ProtocolKind::TPbft => ProtocolChoice::TPbft,
        ProtocolKind::ProBft => ProtocolChoice::ProBft,
        ProtocolKind::Raft => ProtocolChoice::Raft,
    }
}

const LOOK: Duration = Duration::from_secs(5);
