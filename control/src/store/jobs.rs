//! Rows of jobs: written, read, found again after a start, removed when they are old. Part of the store.
use std::sync::Arc;

use dwcp_abi::link::strings;
use dwcp_abi::wire::{FilterAction, FilterRule, TreeOptions, filter_rules};
use dwcp_api::{Counts, Direction, Filter, PathText, TransferState};

use super::database::{Database, Fault, Row, Value};
use super::{PageQuery, Recovered};
use crate::jobs::{JobRecord, JobRequest, join_filters, join_paths, transfer_options, tree_options};

/// What had not ended, and everything else that control keeps in memory.
pub(super) fn recover(database: &mut dyn Database) -> Result<Recovered, Fault> {
    let rows = database.query("SELECT * FROM jobs WHERE finished_ms IS NULL ORDER BY id", &[])?;
    let unfinished = rows.iter().map(record).collect::<Result<Vec<_>, _>>()?;
    // The newest job is never removed: no number is used twice.
    let rows = database.query("SELECT max(id) AS last FROM jobs", &[])?;
    let last = rows.first().map(|row| row.optional_integer("last")).transpose()?.flatten();
    Ok(Recovered {
        unfinished,
        next_id: last.unwrap_or(0).cast_unsigned() + 1,
        keys: super::access::keys(database)?,
        tunnels: super::tunnels::all(database)?,
    })
}

/// Removes jobs that ended before `before_ms`, and the oldest beyond the bound; how many.
pub(super) fn prune(database: &mut dyn Database, before_ms: u64) -> Result<u64, Fault> {
    let old = database.execute(PRUNE_OLD, &[before_ms.into()])?;
    Ok(old + database.execute(PRUNE_MANY, &[HISTORY_MAX.into()])?)
}

/// Writes a new job.
pub(super) fn insert(database: &mut dyn Database, record: &JobRecord) -> Result<(), Fault> {
    let JobRequest { direction, peer, sources, destination, options } = &*record.request;
    let values = [
        record.id.into(),
        direction.name().into(),
        peer.into(),
        join_paths(sources).into(),
        destination.as_bytes().to_vec().into(),
        options.streams.into(),
        tree_options(options).bits().into(),
        join_filters(&options.filters).into(),
        record.created_ms.into(),
        record.key.as_ref().into(),
    ];
    database.execute(INSERT, &values)?;
    update(database, record)
}

/// Writes what may change of a job.
pub(super) fn update(database: &mut dyn Database, record: &JobRecord) -> Result<(), Fault> {
    let counts = &record.counts;
    let values = [
        record.state.name().into(),
        record.attempt.into(),
        record.instance.into(),
        record.is_cancelled.into(),
        record.is_paused.into(),
        record.is_scanned.into(),
        record.lanes.into(),
        counts.entries_done.into(),
        counts.entries_total.into(),
        counts.bytes_done.into(),
        counts.bytes_total.into(),
        counts.bytes_wire.into(),
        counts.bytes_resent.into(),
        counts.bytes_resumed.into(),
        counts.failures.into(),
        record.started_ms.into(),
        record.finished_ms.into(),
        record.error.as_ref().into(),
        record.changes.to_vec().into(),
        record.id.into(),
    ];
    database.execute(UPDATE, &values)?;
    Ok(())
}

/// One job.
pub(super) fn one(database: &mut dyn Database, id: u64) -> Result<Option<JobRecord>, Fault> {
    first(&database.query("SELECT * FROM jobs WHERE id = $1", &[id.into()])?)
}

/// The job that was ordered under this key.
pub(super) fn by_key(database: &mut dyn Database, key: &str) -> Result<Option<JobRecord>, Fault> {
    first(&database.query("SELECT * FROM jobs WHERE key = $1", &[key.into()])?)
}

fn first(rows: &[Row]) -> Result<Option<JobRecord>, Fault> {
    rows.first().map(record).transpose()
}

/// A page of jobs, newest first.
pub(super) fn page(database: &mut dyn Database, query: PageQuery) -> Result<Vec<JobRecord>, Fault> {
    let below = query.below.map_or(Value::Integer(i64::MAX), Into::into);
    let rows = match query.state {
        Some(state) => database.query(PAGE_OF_STATE, &[below, state.name().into(), query.limit.into()])?,
        None => database.query(PAGE, &[below, query.limit.into()])?,
    };
    rows.iter().map(record).collect()
}

fn record(row: &Row) -> Result<JobRecord, Fault> {
    let direction = row.text("direction")?;
    let state = row.text("state")?;
    let request = JobRequest {
        direction: match direction.as_str() {
            "send" => Direction::Send,
            "fetch" => Direction::Fetch,
            other => return Err(Fault::Damaged(format!("direction {other:?}"))),
        },
        peer: row.text("peer")?,
        sources: split_paths(&row.bytes("sources")?)?,
        destination: path(&row.bytes("destination")?)?,
        options: transfer_options(
            row.small("streams")?,
            TreeOptions::from_bits(row.small("tree")?).map_err(|error| Fault::Damaged(error.to_string()))?,
            split_filters(&row.bytes("filters")?)?,
        ),
    };
    let known = TransferState::ALL.into_iter().find(|known| known.name() == state);
    Ok(JobRecord {
        id: row.number("id")?,
        key: row.optional_text("key")?,
        request: Arc::new(request),
        state: known.ok_or_else(|| Fault::Damaged(format!("state {state:?}")))?,
        attempt: row.small("attempt")?,
        instance: row.number("instance")?,
        is_cancelled: row.flag("is_cancelled")?,
        is_paused: row.flag("is_paused")?,
        is_scanned: row.flag("is_scanned")?,
        lanes: row.small("lanes")?,
        counts: counts(row)?,
        created_ms: row.number("created_ms")?,
        started_ms: row.optional_integer("started_ms")?.map(i64::cast_unsigned),
        finished_ms: row.optional_integer("finished_ms")?.map(i64::cast_unsigned),
        error: row.optional_text("error")?,
        changes: row.bytes("changes")?.into(),
    })
}

fn counts(row: &Row) -> Result<Counts, Fault> {
    Ok(Counts {
        entries_done: row.number("entries_done")?,
        entries_total: row.number("entries_total")?,
        bytes_done: row.number("bytes_done")?,
        bytes_total: row.number("bytes_total")?,
        bytes_wire: row.number("bytes_wire")?,
        bytes_resent: row.number("bytes_resent")?,
        bytes_resumed: row.number("bytes_resumed")?,
        failures: row.number("failures")?,
    })
}

fn split_paths(list: &[u8]) -> Result<Vec<PathText>, Fault> {
    strings(list).map(|item| path(item.map_err(|error| Fault::Damaged(error.to_string()))?)).collect()
}

fn split_filters(list: &[u8]) -> Result<Vec<Filter>, Fault> {
    let filter = |rule: FilterRule<'_>| {
        let make = match rule.action {
            FilterAction::Include => Filter::Include,
            FilterAction::Exclude => Filter::Exclude,
        };
        path(rule.pattern).map(make)
    };
    filter_rules(list).map(|rule| filter(rule.map_err(|error| Fault::Damaged(error.to_string()))?)).collect()
}

fn path(bytes: &[u8]) -> Result<PathText, Fault> {
    PathText::new(bytes).map_err(|error| Fault::Damaged(error.to_string()))
}

const PAGE: &str = "SELECT * FROM jobs WHERE id < $1 ORDER BY id DESC LIMIT $2";
const PAGE_OF_STATE: &str = "SELECT * FROM jobs WHERE id < $1 AND state = $2 ORDER BY id DESC LIMIT $3";
const INSERT: &str =
    "INSERT INTO jobs (id, direction, peer, sources, destination, streams, tree, filters, created_ms,
    key) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
const UPDATE: &str =
    "UPDATE jobs SET state = $1, attempt = $2, instance = $3, is_cancelled = $4, is_paused = $5, is_scanned = $6,
    lanes = $7, entries_done = $8, entries_total = $9, bytes_done = $10, bytes_total = $11, bytes_wire = $12,
    bytes_resent = $13, bytes_resumed = $14, failures = $15, started_ms = $16, finished_ms = $17, error = $18,
    changes = $19 WHERE id = $20";
const PRUNE_OLD: &str = "DELETE FROM jobs WHERE finished_ms < $1 AND id < (SELECT max(id) FROM jobs)";
const PRUNE_MANY: &str = "DELETE FROM jobs WHERE finished_ms IS NOT NULL AND id <= (SELECT id FROM jobs
    WHERE finished_ms IS NOT NULL ORDER BY id DESC LIMIT 1 OFFSET $1)";
/// About 100 MB on disk; memory does not depend on it.
const HISTORY_MAX: u64 = 100_000;
