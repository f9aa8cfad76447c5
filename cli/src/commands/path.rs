//! `dwcp path PEER`: what was measured of the path to a peer, and what keeps it from being faster.
use dwcp_api::{PathMode, PeerFigures};

use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output::{self, plain};
use crate::units;

pub(super) async fn run(context: &Context, name: &str) -> Result<Code, Failure> {
    let mut list = context.client()?.peers().await?;
    let Some(at) = list.peers.iter().position(|peer| peer.name == name) else {
        let names = list.peers.iter().map(|peer| peer.name.as_str());
        let hint = dwcp_config::nearest(name, names)
            .map_or_else(|| "`dwcp peers` lists them".to_owned(), |near| format!("did you mean '{near}'?"));
        return Err(Failure::usage(format!("no peer '{name}' is configured")).with_hint(hint));
    };
    let peer = list.peers.swap_remove(at);
    if context.json {
        list.peers = vec![peer];
        output::json(&list)?;
        return Ok(Code::Ok);
    }
    output::result(&render(&peer))?;
    Ok(Code::Ok)
}

fn render(peer: &PeerFigures) -> String {
    let lanes = match &peer.path {
        Some(path) => format!("{} up, {} busy when last measured", peer.lanes, path.busy_lanes),
        None => format!("{} up", peer.lanes),
    };
    let mut text = format!("peer      {} ({})\nlanes     {lanes}\n", plain(&peer.name), peer.state.name());
    let Some(path) = &peer.path else {
        text.push_str("limit     nothing was measured yet: send something first\n");
        return text;
    };
    let milliseconds = |us: u32| f64::from(us) / 1000.0;
    let mode = match path.mode {
        PathMode::Datacenter => "datacenter: each lane by the kernel's congestion control",
        PathMode::Internet => "internet: all lanes paced together",
    };
    let queue_us = path.rtt_us.saturating_sub(path.rtt_min_us);
    let ceiling = path.ceiling_bytes_per_s.map_or_else(|| "none".to_owned(), units::rate);
    text.push_str(&format!(
        "mode      {mode}\n\
         rtt       {:.1} ms at least, {:.1} ms of queue\n\
         resent    {:.2} %\n\
         rate      {} delivered, ceiling {ceiling}\n\
         limit     {}\n",
        milliseconds(path.rtt_min_us),
        milliseconds(queue_us),
        path.resent_share * 100.0,
        units::rate(path.delivered_bytes_per_s),
        path.limit.verdict(),
    ));
    text
}
