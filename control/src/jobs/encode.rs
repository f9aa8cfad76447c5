//! Jobs as commands of the link. Used by jobs; bounds are those of the command ring.
use dwcp_abi::codec::{CodecError, Encoded, SHORT_BYTES_MAX};
use dwcp_abi::link::{Command, FetchJob, JobOptions, SendJob};
use dwcp_abi::shm::RECORD_BYTES_MAX;
use dwcp_abi::wire::{self, FilterAction, JobChanges, NOTES_BYTES_MAX, TreeOptions, changed_names};
use dwcp_api::{Change, ChangedName, Changes, Direction, Filter, PathText, TransferOptions};

use super::record::{JobRecord, JobRequest};

/// Paths, each behind a `u16` length: the form of the link and of the store.
pub(crate) fn join_paths(paths: &[PathText]) -> Vec<u8> {
    let mut list = Vec::new();
    for path in paths {
        let bytes = path.as_bytes();
        // `PathText` bounds a path far below 64 KiB.
        list.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
        list.extend_from_slice(bytes);
    }
    list
}

/// Rules in the form of the link and of the store.
pub(crate) fn join_filters(filters: &[Filter]) -> Vec<u8> {
    let mut list = Vec::new();
    for filter in filters {
        let (action, pattern) = match filter {
            Filter::Include(pattern) => (FilterAction::Include, pattern),
            Filter::Exclude(pattern) => (FilterAction::Exclude, pattern),
        };
        list.push(action as u8);
        list.extend_from_slice(&join_paths(std::slice::from_ref(pattern)));
    }
    list
}

/// How the tree is treated, in the form of the link and of the store.
pub(crate) fn tree_options(options: &TransferOptions) -> TreeOptions {
    let wanted = [
        (TreeOptions::SKIP_UNCHANGED, options.skip_unchanged),
        (TreeOptions::CHECKSUM, options.checksum),
        (TreeOptions::DELETE, options.delete),
        (TreeOptions::DRY_RUN, options.dry_run),
        (TreeOptions::HARD_LINKS, options.hard_links),
        (TreeOptions::XATTRS, options.xattrs),
        (TreeOptions::ACLS, options.acls),
        (TreeOptions::OWNER, options.owner),
        (TreeOptions::GROUP, options.group),
        (TreeOptions::NUMERIC_IDS, options.numeric_ids),
        (TreeOptions::DEVICES, options.devices),
        (TreeOptions::SPECIALS, options.specials),
    ];
    wanted.into_iter().fold(TreeOptions::NONE, |tree, (option, wanted)| tree.with(option, wanted))
}

/// The other way.
pub(crate) fn transfer_options(streams: u16, tree: TreeOptions, filters: Vec<Filter>) -> TransferOptions {
    TransferOptions {
        streams,
        skip_unchanged: tree.has(TreeOptions::SKIP_UNCHANGED),
        checksum: tree.has(TreeOptions::CHECKSUM),
        delete: tree.has(TreeOptions::DELETE),
        dry_run: tree.has(TreeOptions::DRY_RUN),
        hard_links: tree.has(TreeOptions::HARD_LINKS),
        xattrs: tree.has(TreeOptions::XATTRS),
        acls: tree.has(TreeOptions::ACLS),
        owner: tree.has(TreeOptions::OWNER),
        group: tree.has(TreeOptions::GROUP),
        numeric_ids: tree.has(TreeOptions::NUMERIC_IDS),
        devices: tree.has(TreeOptions::DEVICES),
        specials: tree.has(TreeOptions::SPECIALS),
        filters,
    }
}

/// What a job has changed, for people. None where the dataplane said nothing of it, or nothing that can be read: a peer
/// may have written it.
pub(super) fn changes(bytes: &[u8]) -> Option<Changes> {
    let JobChanges { created, replaced, bytes, deleted, names, notes: _ } = JobChanges::decode(bytes).ok()?;
    let named = |named: dwcp_abi::wire::ChangedName<'_>| {
        let change = match named.change {
            wire::Change::Created => Change::Created,
            wire::Change::Replaced => Change::Replaced,
            wire::Change::Deleted => Change::Deleted,
        };
        Some(ChangedName { change, path: PathText::new(named.name).ok()? })
    };
    let names = changed_names(names).map_while(Result::ok).filter_map(named).collect();
    Some(Changes { created, replaced, bytes, deleted, names })
}

/// What an operator should know of a job though nothing failed: lines that a peer may have written.
pub(super) fn notes(bytes: &[u8]) -> Vec<String> {
    let notes = JobChanges::decode(bytes).map_or(&[][..], |changes| changes.notes);
    let notes = String::from_utf8_lossy(&notes[..notes.len().min(NOTES_BYTES_MAX)]);
    notes.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Whether the request can be told to the dataplane in one command.
pub(crate) fn fits_the_ring(request: &JobRequest) -> bool {
    let record = JobRecord::new(0, std::sync::Arc::new(request.clone()), 0);
    join_paths(&request.sources).len() <= SHORT_BYTES_MAX && start(&record).is_ok()
}

/// The command that starts the record's attempt.
pub(super) fn start(record: &JobRecord) -> Result<Vec<u8>, CodecError> {
    let request = &record.request;
    let (sources, filters) = (join_paths(&request.sources), join_filters(&request.options.filters));
    let (sources, filters) = (&sources[..], &filters[..]);
    let options = JobOptions { streams: request.options.streams, tree: tree_options(&request.options) };
    let (job, attempt) = (record.id, record.attempt);
    let (peer, destination) = (request.peer.as_bytes(), request.destination.as_bytes());
    let command = match request.direction {
        Direction::Send => {
            Command::Send(SendJob { job, attempt, peer, destination, options, filters, sources })
        }
        Direction::Fetch => {
            Command::Fetch(FetchJob { job, attempt, peer, destination, options, filters, sources })
        }
    };
    encode(&command)
}

/// Any command as bytes for the ring.
pub(super) fn encode(command: &Command<'_>) -> Result<Vec<u8>, CodecError> {
    let mut bytes = vec![0; RECORD_BYTES_MAX];
    let length = command.encode(&mut bytes)?;
    bytes.truncate(length);
    Ok(bytes)
}
