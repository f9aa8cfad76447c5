//! `dwcp tunnel`: lists, adds and removes tunnels.
use dwcp_api::{TunnelFigures, TunnelList, TunnelRequest, TunnelState};

use crate::arguments::Tunnel;
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output::{self, plain};
use crate::table::{Side, Table};
use crate::units;

pub(super) async fn run(context: &Context, command: Tunnel) -> Result<Code, Failure> {
    match command {
        Tunnel::Add { listen, destination } => add(context, &listen, &destination).await,
        Tunnel::List => list(context).await,
        Tunnel::Remove { listen } => remove(context, &listen).await,
    }
}

async fn add(context: &Context, listen: &str, destination: &str) -> Result<Code, Failure> {
    let tunnel = dwcp_config::Tunnel::new(listen, destination).map_err(Failure::usage)?;
    let request =
        TunnelRequest { listen: tunnel.listen.to_string(), peer: tunnel.peer, target: tunnel.target };
    let added = context.client()?.add_tunnel(&request).await?;
    if context.json {
        output::json(&added)?;
        return Ok(Code::Ok);
    }
    let TunnelFigures { listen, peer, target, state, .. } = &added.tunnel;
    let state = match state {
        TunnelState::Listening => "listening",
        TunnelState::Failed | TunnelState::Waiting => "kept; it will listen once the dataplane is there",
    };
    context.note(&format!("{listen} -> {}:{}: {state}", plain(peer), plain(target)));
    Ok(Code::Ok)
}

async fn list(context: &Context) -> Result<Code, Failure> {
    let list = context.client()?.tunnels().await?;
    if context.json {
        output::json(&list)?;
        return Ok(Code::Ok);
    }
    if list.tunnels.is_empty() && list.peers.is_empty() {
        context.note("no tunnels: `dwcp tunnel add LISTEN PEER:HOST:PORT` makes one");
        return Ok(Code::Ok);
    }
    output::result(&render(&list))?;
    Ok(Code::Ok)
}

async fn remove(context: &Context, listen: &str) -> Result<Code, Failure> {
    let list = context.client()?.remove_tunnel(listen).await?;
    if context.json {
        output::json(&list)?;
        return Ok(Code::Ok);
    }
    context.note(&format!("{listen}: no tunnel any more; connections that stand run to their ends"));
    Ok(Code::Ok)
}

fn render(list: &TunnelList) -> String {
    let mut text = String::new();
    if !list.tunnels.is_empty() {
        let mut table = Table::new(&[
            ("LISTEN", Side::Left),
            ("TARGET", Side::Left),
            ("STATE", Side::Left),
            ("OPEN", Side::Right),
            ("TOTAL", Side::Right),
            ("REFUSED", Side::Right),
            ("SENT", Side::Right),
            ("RECEIVED", Side::Right),
            ("LAST ERROR", Side::Left),
        ]);
        for tunnel in &list.tunnels {
            table.row([
                plain(&tunnel.listen),
                format!("{}:{}", plain(&tunnel.peer), plain(&tunnel.target)),
                tunnel.state.name().to_owned(),
                tunnel.connections.to_string(),
                tunnel.connections_total.to_string(),
                tunnel.refused_total.to_string(),
                units::bytes(tunnel.bytes_sent),
                units::bytes(tunnel.bytes_received),
                tunnel.last_error.as_deref().map_or_else(|| "-".to_owned(), plain),
            ]);
        }
        text.push_str(&table.render());
    }
    if !list.peers.is_empty() {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&render_peers(list));
    }
    text
}

/// What comes from peers to targets here, and the lanes that both directions share.
fn render_peers(list: &TunnelList) -> String {
    let mut table = Table::new(&[
        ("PEER", Side::Left),
        ("LANES", Side::Right),
        ("LOST", Side::Right),
        ("RTT", Side::Right),
        ("ACCEPTED", Side::Right),
        ("TOTAL", Side::Right),
        ("REFUSED", Side::Right),
        ("SENT", Side::Right),
        ("RECEIVED", Side::Right),
    ]);
    for peer in &list.peers {
        table.row([
            plain(&peer.peer),
            peer.lanes.to_string(),
            peer.lanes_lost.to_string(),
            peer.rtt_us.map_or_else(|| "-".to_owned(), |us| format!("{:.1} ms", f64::from(us) / 1000.0)),
            peer.accepted_connections.to_string(),
            peer.accepted_total.to_string(),
            peer.refused_total.to_string(),
            units::bytes(peer.bytes_sent),
            units::bytes(peer.bytes_received),
        ]);
    }
    table.render()
}
