//! `dwcp transfers`: list, show, cancel, follow; and `dwcp pause`, `dwcp resume`.

use dwcp_api::{Direction, Filter, Transfer, TransferId, TransferQuery, TransferState};

use crate::arguments::{Transfers, TransfersCommand, TransfersList};
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output::{self, plain};
use crate::table::{Side, Table};
use crate::{follow, units};

pub(super) async fn run(context: &Context, arguments: Transfers) -> Result<Code, Failure> {
    // Not left to the parser: it would refuse the global options before a subcommand too.
    if arguments.command.is_some() && arguments.list != TransfersList::default() {
        return Err(Failure::usage("--state, --limit and --cursor belong to `list`: give them after it"));
    }
    match arguments.command.unwrap_or(TransfersCommand::List(arguments.list)) {
        TransfersCommand::List(wanted) => list(context, wanted).await,
        TransfersCommand::Show { id } => show(context, id).await,
        TransfersCommand::Cancel { id } => cancel(context, id).await,
        TransfersCommand::Follow { id, following } => {
            follow::run(context, context.client()?, id, following).await
        }
    }
}

async fn list(context: &Context, wanted: TransfersList) -> Result<Code, Failure> {
    let query = TransferQuery { state: wanted.state, limit: wanted.limit, cursor: wanted.cursor };
    let page = context.client()?.transfers(&query).await?;
    if context.json {
        output::json(&page)?;
        return Ok(Code::Ok);
    }
    if page.transfers.is_empty() {
        context.note("no transfers");
        return Ok(Code::Ok);
    }
    output::result(&table(&page.transfers))?;
    if let Some(cursor) = &page.next_cursor {
        context.note(&format!("there are older ones: add --cursor={}", plain(cursor)));
    }
    Ok(Code::Ok)
}

async fn show(context: &Context, id: TransferId) -> Result<Code, Failure> {
    let transfer = context.client()?.transfer(id).await?;
    if context.json {
        output::json(&transfer)?;
    } else {
        output::result(&details(&transfer))?;
    }
    Ok(Code::Ok)
}

async fn cancel(context: &Context, id: TransferId) -> Result<Code, Failure> {
    let transfer = context.client()?.cancel_transfer(id).await?;
    if context.json {
        output::json(&transfer)?;
    } else {
        context.note(&format!("transfer {id} is being cancelled; what is complete stays at the receiver"));
    }
    Ok(Code::Ok)
}

pub(super) async fn pause(context: &Context, id: TransferId) -> Result<Code, Failure> {
    let transfer = context.client()?.pause_transfer(id).await?;
    if context.json {
        output::json(&transfer)?;
    } else {
        context.note(&format!("transfer {id} rests\n  let it go on: dwcp resume {id}"));
    }
    Ok(Code::Ok)
}

pub(super) async fn resume(context: &Context, id: TransferId) -> Result<Code, Failure> {
    let transfer = context.client()?.resume_transfer(id).await?;
    if context.json {
        output::json(&transfer)?;
    } else {
        context.note(&format!("transfer {id} goes on\n  follow it: dwcp transfers follow {id}"));
    }
    Ok(Code::Ok)
}

fn table(transfers: &[Transfer]) -> String {
    let mut table = Table::new(&[
        ("ID", Side::Right),
        ("STATE", Side::Left),
        ("DIRECTION", Side::Left),
        ("PEER", Side::Left),
        ("DONE", Side::Right),
        ("OF", Side::Right),
        ("RATE", Side::Right),
        ("CREATED", Side::Left),
        ("WHAT", Side::Left),
    ]);
    for transfer in transfers {
        table.row([
            transfer.id.to_string(),
            transfer.state.name().to_owned(),
            transfer.direction.name().to_owned(),
            plain(&transfer.peer),
            units::bytes(transfer.counts.bytes_done),
            units::bytes(transfer.counts.bytes_total),
            units::rate(transfer.rate_bytes_per_s),
            transfer.created_at.to_string(),
            what(transfer),
        ]);
    }
    table.render()
}

/// The first source, and how many more there are.
fn what(transfer: &Transfer) -> String {
    let first = transfer.sources.first().map(ToString::to_string).unwrap_or_default();
    match transfer.sources.len() {
        0 | 1 => first,
        count => format!("{first} and {} more", count - 1),
    }
}

fn details(transfer: &Transfer) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        text.push_str(&format!("{:<13}{value}\n", format!("{name}:")));
    };
    let counts = &transfer.counts;
    let (from, to) = match transfer.direction {
        Direction::Send => (String::new(), format!("{}:", plain(&transfer.peer))),
        Direction::Fetch => (format!("{}:", plain(&transfer.peer)), String::new()),
    };
    line("Transfer", &format!("{} ({})", transfer.id, transfer.direction.name()));
    line("State", &format!("{}, attempt {}", transfer.state.name(), transfer.attempt));
    for source in &transfer.sources {
        line("From", &format!("{from}{source}"));
    }
    line("To", &format!("{to}{}", transfer.destination));
    let options = &transfer.options;
    let said = [
        ("skip unchanged", options.skip_unchanged),
        ("checksum", options.checksum),
        ("delete", options.delete),
        ("dry run", options.dry_run),
        ("hard links", options.hard_links),
        ("xattrs", options.xattrs),
        ("acls", options.acls),
        ("owner", options.owner),
        ("group", options.group),
        ("numeric ids", options.numeric_ids),
        ("devices", options.devices),
        ("specials", options.specials),
    ];
    let said: Vec<&str> = said.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect();
    if !said.is_empty() {
        line("Options", &said.join(", "));
    }
    for filter in &transfer.options.filters {
        match filter {
            Filter::Include(pattern) => line("Include", &pattern.to_string()),
            Filter::Exclude(pattern) => line("Exclude", &pattern.to_string()),
        }
    }
    let growing = if transfer.scanned || transfer.state.is_final() { "" } else { ", still counting" };
    line(
        "Bytes",
        &format!("{} of {}{growing}", units::bytes(counts.bytes_done), units::bytes(counts.bytes_total)),
    );
    line("Entries", &format!("{} of {}{growing}", counts.entries_done, counts.entries_total));
    line("Wire", &format!("{}, ratio {}", units::bytes(counts.bytes_wire), units::ratio(transfer.ratio)));
    line("Resent", &units::bytes(counts.bytes_resent));
    if counts.bytes_resumed > 0 {
        line("Resumed", &format!("{} of a former attempt", units::bytes(counts.bytes_resumed)));
    }
    line("Rate", &units::rate(transfer.rate_bytes_per_s));
    if let Some(changes) = &transfer.changes {
        line("Changes", &follow::changes::line(changes, options.dry_run));
    }
    line("Lanes", &transfer.lanes.to_string());
    line("Created", &transfer.created_at.to_string());
    if let Some(started) = transfer.started_at {
        line("Started", &started.to_string());
    }
    if let Some(finished) = transfer.finished_at {
        line("Finished", &finished.to_string());
    }
    line("Elapsed", &units::elapsed(transfer.elapsed_seconds));
    if let Some(eta) = transfer.eta_seconds.filter(|_| transfer.state == TransferState::Running) {
        line("Time left", &units::seconds(eta));
    }
    if let Some(error) = &transfer.error {
        line("Error", &plain(error));
    }
    for note in &transfer.notes {
        line("Note", &plain(note));
    }
    for failure in follow::failures(transfer) {
        line("Failed", &failure);
    }
    text
}
