//! The cluster's families. A node that is in none has no samples of them, so that nothing alerts.
use dwcp_abi::codec::Encoded;
use dwcp_abi::wire::ClusterAbout;
use dwcp_consensus::ProtocolKind;

use super::table::FAMILIES;
use super::text::Page;
use crate::cluster::{Cluster, LATENCY_BOUNDS_S, Latency, Running};

/// All of them.
pub(super) fn cluster(page: &mut Page, cluster: &Cluster) {
    let Ok(running) = cluster.member() else {
        for family in FAMILIES.iter().filter(|family| family.name.starts_with("dwcp_acp_")) {
            page.family(family.name);
        }
        return;
    };
    decisions(page, &running);
    messages(page, &running);
    members(page, &running);
}

fn decisions(page: &mut Page, running: &Running) {
    let view = running.view();
    let group = ("group", "cluster");
    page.family("dwcp_acp_consensus_latency_seconds");
    histogram(page, group, &view.latency);
    page.family("dwcp_acp_quorum_formation_seconds");
    histogram(page, group, &view.quorum);
    page.family("dwcp_acp_finalization_seconds");
    histogram(page, ("finality", "certain"), &view.certain);
    histogram(page, ("finality", "probable"), &view.probable);
    page.family("dwcp_acp_round_seconds");
    histogram(page, group, &view.round);
    page.family("dwcp_acp_consensus_failures_total").sample(&[group], view.failures);
    page.family("dwcp_acp_transactions_total");
    for (kind, count) in ProtocolKind::ALL.into_iter().zip(view.applied) {
        page.sample(&[("algorithm", kind.name())], count);
    }
    page.one("dwcp_acp_deciding", view.is_deciding);
    page.one("dwcp_acp_epoch", view.figures.epoch);
    page.one("dwcp_acp_epochs_total", view.switches);
    page.one("dwcp_acp_position", view.figures.position);
    page.one("dwcp_acp_leaders_given_up_total", view.figures.leaders_given_up);
    page.one("dwcp_acp_dag_depth_vertices", view.figures.log_length as u64);
}

fn histogram(page: &mut Page, label: (&str, &str), latency: &Latency) {
    let mut below = 0;
    for (bound, count) in LATENCY_BOUNDS_S.iter().zip(latency.counts) {
        below += count;
        page.suffixed("_bucket", &[label, ("le", &bound.to_string())], below);
    }
    let count: u64 = latency.counts.iter().sum();
    page.suffixed("_bucket", &[label, ("le", "+Inf")], count);
    page.suffixed("_sum", &[label], latency.sum_s).suffixed("_count", &[label], count);
}

fn messages(page: &mut Page, running: &Running) {
    let [sent, received, dropped, reached] = running.messages();
    page.family("dwcp_acp_messages_total");
    let refused = running.view().figures.refused;
    for (kind, count) in [("sent", sent), ("received", received), ("dropped", dropped), ("refused", refused)]
    {
        page.sample(&[("kind", kind)], count);
    }
    page.one("dwcp_acp_peers_reached", reached);
}

fn members(page: &mut Page, running: &Running) {
    let view = running.view();
    let seats = view.plan.as_ref().map_or(0, |plan| plan.committee.len());
    page.one("dwcp_acp_committee_size", seats as u64);
    page.one("dwcp_acp_byzantine_suspects", view.suspects.len() as u64);
    page.family("dwcp_acp_trust");
    for (replica, millionths) in &view.trust {
        let member =
            view.plan.iter().flat_map(|plan| &plan.members).find(|member| member.replica == *replica);
        let about = member.and_then(|member| ClusterAbout::decode(&member.about).ok());
        let name = about.map(|about| String::from_utf8_lossy(about.name).into_owned());
        let name = name.unwrap_or_else(|| replica.0.to_string());
        page.sample(&[("peer", &name)], f64::from(*millionths) / 1e6);
    }
}
