//! `dwcp cluster` and `dwcp debug consensus`: nodes that agree with each other.
use dwcp_api::{
    ClusterJoinRequest, ClusterMembers, ClusterNode, ClusterPut, ConsensusChange, ConsensusStatus,
};

use crate::arguments::{Cluster, ClusterSelf};
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output::{self, plain};
use crate::table::{Side, Table};

pub(super) async fn run(context: &Context, command: Cluster) -> Result<Code, Failure> {
    let client = context.client()?;
    match command {
        Cluster::Init(node) => show(context, &client.init_cluster(&presented(node)).await?)?,
        Cluster::Join { peer, token, node } => {
            let request = ClusterJoinRequest { peer, token, node: presented(node) };
            show(context, &client.join_cluster(&request).await?)?;
        }
        Cluster::Leave => {
            let before = client.leave_cluster().await?;
            if context.json {
                output::json(&before)?;
            }
            context.note("this node is in no cluster any more");
        }
        Cluster::Remove { node } => show(context, &client.remove_from_cluster(&node).await?)?,
        Cluster::List => show(context, &client.cluster_members().await?)?,
        Cluster::Token => token(context).await?,
        Cluster::Algorithm { algorithm } => {
            let algorithm = algorithm.name().to_owned();
            let status = client.change_consensus(&ConsensusChange { algorithm }).await?;
            shown(context, &status)?;
            context.note("decided; the next epoch begins with it");
        }
        Cluster::Get { key } => {
            let value = client.cluster_value(&key).await?;
            if context.json {
                output::json(&value)?;
            } else if let Some(text) = &value.value {
                output::result(&format!("{}\n", plain(text)))?;
            } else {
                return Err(Failure::general(format!("there is no value '{}'", plain(&key))));
            }
        }
        Cluster::Set { key, value } => {
            let set = client.put_cluster_value(&key, &ClusterPut { value, expected_version: None }).await?;
            if context.json {
                output::json(&set)?;
            }
            let version = set.version.unwrap_or(0);
            context.note(&format!("{}: decided at position {version}", plain(&key)));
        }
        Cluster::Unset { key } => {
            let gone = client.delete_cluster_value(&key).await?;
            if context.json {
                output::json(&gone)?;
            }
            context.note(&format!("{}: removed", plain(&key)));
        }
    }
    Ok(Code::Ok)
}

async fn token(context: &Context) -> Result<(), Failure> {
    let token = context.client()?.cluster_token().await?;
    if context.json {
        return output::json(&token);
    }
    output::result(&format!("{}\n", plain(&token.token)))?;
    context.note("it admits one node, within an hour; on that node:");
    context.note(&format!("  dwcp cluster join --peer {} --token TOKEN", plain(&token.peer)));
    Ok(())
}

fn presented(node: ClusterSelf) -> ClusterNode {
    ClusterNode { node_id: node.node_id, address: node.address, region: node.region }
}

fn show(context: &Context, members: &ClusterMembers) -> Result<(), Failure> {
    if context.json {
        return output::json(members);
    }
    let columns = [
        ("NUMBER", Side::Right),
        ("NAME", Side::Left),
        ("ADDRESS", Side::Left),
        ("REGION", Side::Left),
        ("VOTES", Side::Left),
        ("TRUST", Side::Right),
        ("NOTE", Side::Left),
    ];
    let mut table = Table::new(&columns);
    for member in &members.members {
        let note = match (member.suspect, member.replica == members.replica) {
            (true, _) => "was shown to lie",
            (false, true) => "this node",
            (false, false) => "",
        };
        table.row([
            member.replica.to_string(),
            plain(&member.name),
            plain(&member.address),
            plain(&member.region),
            if member.votes { "yes" } else { "no" }.to_owned(),
            member.trust.map_or_else(String::new, |trust| format!("{trust:.3}")),
            note.to_owned(),
        ]);
    }
    output::result(&table.render())?;
    context.note(&format!("epoch {}, {}", members.epoch, plain(&members.algorithm)));
    Ok(())
}

pub(super) async fn debug(context: &Context) -> Result<Code, Failure> {
    let client = context.client()?;
    let status = client.consensus().await?;
    shown(context, &status)?;
    let suspects = client.consensus_suspects().await?.suspects;
    for suspect in suspects {
        context.note(&format!("{} was shown to lie: remove it (dwcp cluster remove)", plain(&suspect.name)));
    }
    Ok(if status.deciding && status.running { Code::Ok } else { Code::General })
}

fn shown(context: &Context, status: &ConsensusStatus) -> Result<(), Failure> {
    if context.json {
        return output::json(status);
    }
    let committee: Vec<String> = status.committee.iter().map(u16::to_string).collect();
    let bound = |bound: Option<f64>| bound.map_or_else(|| "-".to_owned(), |ms| format!("<= {ms} ms"));
    let messages = status.messages;
    let lines = [
        ("epoch", format!("{}, {}", status.epoch, plain(&status.algorithm))),
        ("committee", format!("{}; {} may be faulty", committee.join(" "), status.faulty_max)),
        ("deciding", if status.deciding { "yes" } else { "no" }.to_owned()),
        ("reached", format!("{} other members", status.reached)),
        ("position", format!("{} applied, {} stable, mark {}", status.position, status.stable, status.mark)),
        ("latency", format!("p50 {}, p99 {}", bound(status.latency_ms_p50), bound(status.latency_ms_p99))),
        (
            "messages",
            format!(
                "{} sent, {} received, {} dropped, {} refused",
                messages.sent, messages.received, messages.dropped, messages.refused
            ),
        ),
        (
            "held",
            format!(
                "{} slots or rounds, {} batches, {} values",
                status.log_length, status.batches, status.values
            ),
        ),
        (
            "trouble",
            status.trouble.as_deref().map_or_else(
                || {
                    format!(
                        "{} leaders given up, {} states taken, {} conflicts",
                        status.leaders_given_up, status.transfers, status.conflicts
                    )
                },
                plain,
            ),
        ),
    ];
    let text: String = lines.iter().map(|(name, value)| format!("{name:<10} {value}\n")).collect();
    output::result(&text)
}
