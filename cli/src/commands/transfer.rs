//! `dwcp send` and `dwcp fetch`: understand the arguments, create the transfer, follow it.
use std::ffi::OsString;

use dwcp_api::client::ClientError;
use dwcp_api::{Direction, SOURCES_MAX, TransferOptions, TransferRequest};

use crate::arguments::{Fetch, Job, Send};
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::remote::{Remote, local};
use crate::{follow, output};

pub(super) async fn send(context: &Context, arguments: &Send) -> Result<Code, Failure> {
    let request = send_request(arguments)?;
    start(context, &request, &arguments.job).await
}

pub(super) async fn fetch(context: &Context, arguments: &Fetch) -> Result<Code, Failure> {
    let request = fetch_request(arguments)?;
    start(context, &request, &arguments.job).await
}

fn send_request(arguments: &Send) -> Result<TransferRequest, Failure> {
    let (sources, destination) = split(&arguments.places, "SRC and PEER:DEST")?;
    let remote = Remote::parse(destination).map_err(|failure| {
        // The other way round is the likely mistake where a source names a peer.
        match sources.iter().any(|source| Remote::parse(source).is_ok()) {
            true => failure.with_hint("to get data from a peer use `dwcp fetch PEER:SRC DEST`"),
            false => failure,
        }
    })?;
    let sources: Result<Vec<_>, _> = sources.iter().map(|source| local(source)).collect();
    checked(TransferRequest {
        direction: Direction::Send,
        peer: remote.peer,
        sources: sources?,
        destination: remote.path,
        options: options(&arguments.job),
    })
}

fn fetch_request(arguments: &Fetch) -> Result<TransferRequest, Failure> {
    let (sources, destination) = split(&arguments.places, "PEER:SRC and DEST")?;
    let remotes: Result<Vec<_>, _> = sources.iter().map(|source| Remote::parse(source)).collect();
    let remotes = remotes.map_err(|failure| match Remote::parse(destination) {
        Ok(_) => failure.with_hint("to send data to a peer use `dwcp send SRC PEER:DEST`"),
        Err(_) => failure,
    })?;
    let peer = remotes.first().map(|remote| remote.peer.clone()).unwrap_or_default();
    if let Some(other) = remotes.iter().find(|remote| remote.peer != peer) {
        return Err(Failure::usage(format!(
            "the sources belong to two peers, '{peer}' and '{}'",
            other.peer
        ))
        .with_hint("fetch from each with a command of its own"));
    }
    checked(TransferRequest {
        direction: Direction::Fetch,
        peer,
        sources: remotes.into_iter().map(|remote| remote.path).collect(),
        destination: local(destination)?,
        options: options(&arguments.job),
    })
}

/// The last place is the destination.
fn split<'a>(places: &'a [OsString], wanted: &str) -> Result<(&'a [OsString], &'a OsString), Failure> {
    match places.split_last() {
        Some((destination, sources)) if !sources.is_empty() => Ok((sources, destination)),
        _ => Err(Failure::usage(format!("both {wanted} are needed"))),
    }
}

fn checked(request: TransferRequest) -> Result<TransferRequest, Failure> {
    let count = request.sources.len();
    if count > SOURCES_MAX {
        return Err(Failure::usage(format!(
            "{count} sources are more than the {SOURCES_MAX} of one transfer"
        ))
        .with_hint("name their directory, or split them over several commands"));
    }
    Ok(request)
}

fn options(job: &Job) -> TransferOptions {
    job.keep.apply(TransferOptions {
        streams: job.streams.unwrap_or(0),
        skip_unchanged: job.skip_unchanged,
        checksum: job.checksum,
        delete: job.delete,
        dry_run: job.dry_run,
        filters: job.filters.0.clone(),
        ..TransferOptions::default()
    })
}

async fn start(context: &Context, request: &TransferRequest, job: &Job) -> Result<Code, Failure> {
    let client = context.client()?;
    let transfer = client.create_transfer(request).await.map_err(uncertain)?;
    if !job.detach {
        return follow::run(context, client, transfer.id, job.following).await;
    }
    let id = transfer.id;
    if context.json {
        output::json(&transfer)?;
    } else {
        output::result(&format!("{id}\n"))?;
    }
    context
        .note(&format!("transfer {id} goes on in the daemon; follow it with `dwcp transfers follow {id}`"));
    Ok(Code::Ok)
}

/// Without an answer nobody knows whether the daemon took the transfer.
fn uncertain(error: ClientError) -> Failure {
    let is_uncertain = matches!(error, ClientError::Timeout { .. } | ClientError::Lost(_));
    let failure = Failure::from(error);
    if is_uncertain {
        return failure
            .with_hint("the transfer may have been created all the same: look with `dwcp transfers`");
    }
    failure
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use dwcp_api::{Filter, PathText};

    use super::*;
    use crate::arguments::{Cli, Command};

    fn request(arguments: &[&str]) -> Result<TransferRequest, Failure> {
        match Cli::try_parse_from(arguments).unwrap().command {
            Command::Send(send) => send_request(&send),
            Command::Fetch(fetch) => fetch_request(&fetch),
            _ => panic!("neither send nor fetch"),
        }
    }

    #[test]
    fn a_fetch_has_one_peer() {
        let request_of_one = request(&["dwcp", "fetch", "berlin:a", "berlin:/b", "/c"]).unwrap();
        assert_eq!(request_of_one.peer, "berlin");
        assert_eq!(request_of_one.sources.len(), 2);
        assert_eq!(request_of_one.destination.as_bytes(), b"/c");
        let failure = request(&["dwcp", "fetch", "berlin:a", "oslo:b", "/c"]).unwrap_err();
        assert!(failure.message.contains("'berlin' and 'oslo'"));
    }

    #[test]
    fn the_wrong_way_round_names_the_right_command() {
        let failure = request(&["dwcp", "send", "berlin:/a", "/b"]).unwrap_err();
        assert!(failure.hint.unwrap().contains("dwcp fetch"));
        let failure = request(&["dwcp", "fetch", "/a", "berlin:/b"]).unwrap_err();
        assert!(failure.hint.unwrap().contains("dwcp send"));
    }

    #[test]
    fn filters_keep_the_order_of_the_command_line() {
        let line =
            ["dwcp", "send", "--exclude", "*.o", "--include=/keep/", "/a", "--exclude", "*", "berlin:x"];
        let pattern = |text: &str| PathText::new(text).unwrap();
        let (objects, keep, all) = (pattern("*.o"), pattern("/keep/"), pattern("*"));
        assert_eq!(
            request(&line).unwrap().options.filters,
            [Filter::Exclude(objects), Filter::Include(keep), Filter::Exclude(all)]
        );
    }

    #[test]
    fn sources_have_a_bound() {
        let names: Vec<String> = (0..=SOURCES_MAX).map(|number| format!("f{number}")).collect();
        let mut arguments = vec!["dwcp", "send"];
        arguments.extend(names.iter().map(String::as_str));
        arguments.push("berlin:x");
        assert_eq!(request(&arguments).unwrap_err().code, Code::Usage);
    }
}
