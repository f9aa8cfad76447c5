//! `dwcp peers`: who is configured and whether lanes stand.
use dwcp_api::PeerFigures;

use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output::{self, plain};
use crate::table::{Side, Table};

pub(super) async fn run(context: &Context) -> Result<Code, Failure> {
    let list = context.client()?.peers().await?;
    if context.json {
        output::json(&list)?;
        return Ok(Code::Ok);
    }
    if list.peers.is_empty() {
        context.note("no peers are configured: name some under `peers:` in the configuration");
        return Ok(Code::Ok);
    }
    output::result(&render(&list.peers))?;
    Ok(Code::Ok)
}

fn render(peers: &[PeerFigures]) -> String {
    let mut table = Table::new(&[
        ("PEER", Side::Left),
        ("STATE", Side::Left),
        ("LANES", Side::Right),
        ("ENCRYPTED", Side::Left),
        ("ADDRESS", Side::Left),
        ("LAST ERROR", Side::Left),
    ]);
    for peer in peers {
        let encrypted = match peer.encrypted {
            Some(true) => "yes",
            Some(false) => "no",
            None => "-",
        };
        table.row([
            plain(&peer.name),
            peer.state.name().to_owned(),
            peer.lanes.to_string(),
            encrypted.to_owned(),
            peer.address.as_deref().map_or_else(|| "(dials us)".to_owned(), plain),
            peer.last_error.as_deref().map_or_else(|| "-".to_owned(), plain),
        ]);
    }
    table.render()
}
