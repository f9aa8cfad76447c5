//! Tables, migrations and rows. `user_version` is the number of migrations that a file has seen.
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dwcp_abi::link::strings;
use dwcp_abi::wire::{FilterAction, FilterRule, TreeOptions, filter_rules};
use dwcp_api::{Counts, Direction, Filter, PathText, TransferState};
use rusqlite::{Connection, OptionalExtension, Row, named_params};

use super::{PageQuery, Recovered, StoreError};
use crate::jobs::{JobRecord, JobRequest, join_filters, join_paths, transfer_options, tree_options};

/// Opens or creates the file, brings it to the newest layout, checks it and reads what had not ended.
pub(super) fn open(file: &Path) -> Result<(Connection, Recovered), StoreError> {
    let unusable = |error: rusqlite::Error| StoreError::Unusable {
        file: file.display().to_string(),
        reason: explain(&error),
    };
    let connection = Connection::open(file).map_err(unusable)?;
    let narrow = std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600));
    narrow.map_err(|error| StoreError::Unusable {
        file: file.display().to_string(),
        reason: error.to_string(),
    })?;
    prepare(&connection).map_err(unusable)?;
    let found: i64 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(unusable)?;
    let known = MIGRATIONS.len() as i64;
    if found > known || found < 0 {
        return Err(StoreError::Newer { file: file.display().to_string(), found, known });
    }
    migrate(&connection, found as usize).map_err(unusable)?;
    let recovered = recover(&connection).map_err(unusable)?;
    Ok((connection, recovered))
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(2))?;
    // One process owns the file: a second one is told so instead of mixing its jobs in.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch("BEGIN EXCLUSIVE; COMMIT;")?;
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" { Ok(()) } else { Err(corrupt(verdict)) }
}

fn migrate(connection: &Connection, from: usize) -> rusqlite::Result<()> {
    for (number, step) in MIGRATIONS.iter().enumerate().skip(from) {
        connection.execute_batch(&format!("BEGIN; {step}; PRAGMA user_version = {}; COMMIT;", number + 1))?;
    }
    Ok(())
}

fn recover(connection: &Connection) -> rusqlite::Result<Recovered> {
    let mut statement = connection.prepare(&format!("{SELECT} WHERE finished_ms IS NULL ORDER BY id"))?;
    let unfinished = statement.query_map([], record)?.collect::<Result<Vec<_>, _>>()?;
    let last: Option<i64> = connection
        .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'", [], |row| row.get(0))
        .optional()?;
    let keys = super::access::keys(connection)?;
    let tunnels = super::tunnels::all(connection)?;
    Ok(Recovered { unfinished, next_id: unsigned(last.unwrap_or(0)) + 1, keys, tunnels })
}

/// The newest layout.
pub(super) fn layout() -> i64 {
    MIGRATIONS.len() as i64
}

/// Makes a change durable that changes nothing: whether the disk takes it is the question.
pub(super) fn probe(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .execute_batch(&format!("BEGIN IMMEDIATE; PRAGMA user_version = {}; COMMIT;", MIGRATIONS.len()))
        .inspect_err(|_| {
            // A transaction that could not be committed would hold up everything after it.
            drop(connection.execute_batch("ROLLBACK"));
        })
}

/// Removes the oldest finished jobs beyond the bound.
pub(super) fn prune(connection: &Connection) -> rusqlite::Result<usize> {
    connection.execute(
        "DELETE FROM jobs WHERE finished_ms IS NOT NULL AND id <= (SELECT id FROM jobs WHERE finished_ms IS NOT NULL
         ORDER BY id DESC LIMIT 1 OFFSET ?1)",
        [HISTORY_MAX],
    )
}

/// Writes a new job.
pub(super) fn insert(connection: &Connection, record: &JobRecord) -> rusqlite::Result<()> {
    let request = &record.request;
    let mut statement = connection.prepare_cached(INSERT)?;
    statement.execute(named_params! {
        ":id": signed(record.id),
        ":direction": request.direction.name(),
        ":peer": request.peer,
        ":sources": join_paths(&request.sources),
        ":destination": request.destination.as_bytes(),
        ":streams": request.options.streams,
        ":tree": tree_options(&request.options).bits(),
        ":filters": join_filters(&request.options.filters),
        ":created_ms": signed(record.created_ms),
        ":key": record.key,
    })?;
    update(connection, record)
}

/// Writes what may change of a job.
pub(super) fn update(connection: &Connection, record: &JobRecord) -> rusqlite::Result<()> {
    let counts = &record.counts;
    connection.prepare_cached(UPDATE)?.execute(named_params! {
        ":id": signed(record.id),
        ":state": record.state.name(),
        ":attempt": record.attempt,
        ":instance": signed(record.instance),
        ":is_cancelled": record.is_cancelled,
        ":is_scanned": record.is_scanned,
        ":lanes": record.lanes,
        ":entries_done": signed(counts.entries_done),
        ":entries_total": signed(counts.entries_total),
        ":bytes_done": signed(counts.bytes_done),
        ":bytes_total": signed(counts.bytes_total),
        ":bytes_wire": signed(counts.bytes_wire),
        ":bytes_resent": signed(counts.bytes_resent),
        ":bytes_resumed": signed(counts.bytes_resumed),
        ":failures": signed(counts.failures),
        ":started_ms": record.started_ms.map(signed),
        ":finished_ms": record.finished_ms.map(signed),
        ":error": record.error,
        ":changes": record.changes,
    })?;
    Ok(())
}

/// One job.
pub(super) fn one(connection: &Connection, id: u64) -> rusqlite::Result<Option<JobRecord>> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE id = ?1"))?;
    statement.query_row([signed(id)], record).optional()
}

/// The job that was ordered under this key.
pub(super) fn by_key(connection: &Connection, key: &str) -> rusqlite::Result<Option<JobRecord>> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE key = ?1"))?;
    statement.query_row([key], record).optional()
}

/// A page of jobs, newest first.
pub(super) fn page(connection: &Connection, query: PageQuery) -> rusqlite::Result<Vec<JobRecord>> {
    let below = query.below.map_or(i64::MAX, signed);
    let sql = format!("{SELECT} WHERE id < ?1 AND (?2 IS NULL OR state = ?2) ORDER BY id DESC LIMIT ?3");
    let mut statement = connection.prepare_cached(&sql)?;
    let state = query.state.map(TransferState::name);
    statement.query_map(rusqlite::params![below, state, query.limit], record)?.collect()
}

fn record(row: &Row<'_>) -> rusqlite::Result<JobRecord> {
    let number = |name: &str| row.get(name).map(unsigned);
    let direction: String = row.get("direction")?;
    let state: String = row.get("state")?;
    let sources: Vec<u8> = row.get("sources")?;
    let request = JobRequest {
        direction: match direction.as_str() {
            "send" => Direction::Send,
            "fetch" => Direction::Fetch,
            other => return Err(corrupt(format!("direction {other:?}"))),
        },
        peer: row.get("peer")?,
        sources: split_paths(&sources)?,
        destination: path(&row.get::<_, Vec<u8>>("destination")?)?,
        options: transfer_options(
            row.get("streams")?,
            TreeOptions::from_bits(row.get("tree")?).map_err(|error| corrupt(error.to_string()))?,
            split_filters(&row.get::<_, Vec<u8>>("filters")?)?,
        ),
    };
    let known = TransferState::ALL.into_iter().find(|known| known.name() == state);
    Ok(JobRecord {
        id: number("id")?,
        key: row.get("key")?,
        request: Arc::new(request),
        state: known.ok_or_else(|| corrupt(format!("state {state:?}")))?,
        attempt: row.get("attempt")?,
        instance: number("instance")?,
        is_cancelled: row.get("is_cancelled")?,
        is_scanned: row.get("is_scanned")?,
        lanes: row.get("lanes")?,
        counts: Counts {
            entries_done: number("entries_done")?,
            entries_total: number("entries_total")?,
            bytes_done: number("bytes_done")?,
            bytes_total: number("bytes_total")?,
            bytes_wire: number("bytes_wire")?,
            bytes_resent: number("bytes_resent")?,
            bytes_resumed: number("bytes_resumed")?,
            failures: number("failures")?,
        },
        created_ms: number("created_ms")?,
        started_ms: row.get::<_, Option<i64>>("started_ms")?.map(unsigned),
        finished_ms: row.get::<_, Option<i64>>("finished_ms")?.map(unsigned),
        error: row.get("error")?,
        changes: row.get("changes")?,
    })
}

fn split_paths(list: &[u8]) -> rusqlite::Result<Vec<PathText>> {
    strings(list).map(|item| path(item.map_err(|error| corrupt(error.to_string()))?)).collect()
}

fn split_filters(list: &[u8]) -> rusqlite::Result<Vec<Filter>> {
    let filter = |rule: FilterRule<'_>| {
        let make = match rule.action {
            FilterAction::Include => Filter::Include,
            FilterAction::Exclude => Filter::Exclude,
        };
        path(rule.pattern).map(make)
    };
    filter_rules(list).map(|rule| filter(rule.map_err(|error| corrupt(error.to_string()))?)).collect()
}

fn path(bytes: &[u8]) -> rusqlite::Result<PathText> {
    PathText::new(bytes).map_err(|error| corrupt(error.to_string()))
}

fn corrupt(what: String) -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    rusqlite::Error::SqliteFailure(code, Some(format!("it is damaged: {what}")))
}

fn explain(error: &rusqlite::Error) -> String {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseBusy) => "another dwcp-control has it open".into(),
        _ => error.to_string(),
    }
}

/// SQLite has signed 64-bit integers only; the bits are kept.
fn signed(value: u64) -> i64 {
    value.cast_signed()
}

fn unsigned(value: i64) -> u64 {
    value.cast_unsigned()
}

const MIGRATIONS: [&str; 7] =
    [JOBS, KEYS, RESUMED, super::access::TABLES, super::tunnels::TABLE, FILTERS, TREE];

/// The bits of `TreeOptions`, of which the first was a column of its own; and `JobChanges`.
const TREE: &str = "ALTER TABLE jobs ADD COLUMN tree INTEGER NOT NULL DEFAULT 0;
UPDATE jobs SET tree = skip_unchanged;
ALTER TABLE jobs DROP COLUMN skip_unchanged;
ALTER TABLE jobs ADD COLUMN changes BLOB NOT NULL DEFAULT x''";

const FILTERS: &str = "ALTER TABLE jobs ADD COLUMN filters BLOB NOT NULL DEFAULT x''";

const RESUMED: &str = "ALTER TABLE jobs ADD COLUMN bytes_resumed INTEGER NOT NULL DEFAULT 0";

const KEYS: &str = "ALTER TABLE jobs ADD COLUMN key TEXT;
CREATE UNIQUE INDEX jobs_by_key ON jobs (key) WHERE key IS NOT NULL";

const JOBS: &str = "CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    direction TEXT NOT NULL,
    peer TEXT NOT NULL,
    sources BLOB NOT NULL,
    destination BLOB NOT NULL,
    streams INTEGER NOT NULL,
    skip_unchanged INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued',
    attempt INTEGER NOT NULL DEFAULT 0,
    instance INTEGER NOT NULL DEFAULT 0,
    is_cancelled INTEGER NOT NULL DEFAULT 0,
    is_scanned INTEGER NOT NULL DEFAULT 0,
    lanes INTEGER NOT NULL DEFAULT 0,
    entries_done INTEGER NOT NULL DEFAULT 0,
    entries_total INTEGER NOT NULL DEFAULT 0,
    bytes_done INTEGER NOT NULL DEFAULT 0,
    bytes_total INTEGER NOT NULL DEFAULT 0,
    bytes_wire INTEGER NOT NULL DEFAULT 0,
    bytes_resent INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    started_ms INTEGER,
    finished_ms INTEGER,
    error TEXT
) STRICT;
CREATE INDEX jobs_by_state ON jobs (state, id);
CREATE INDEX jobs_unfinished ON jobs (id) WHERE finished_ms IS NULL";

const SELECT: &str = "SELECT * FROM jobs";
const INSERT: &str =
    "INSERT INTO jobs (id, direction, peer, sources, destination, streams, tree, filters, created_ms, key)
    VALUES (:id, :direction, :peer, :sources, :destination, :streams, :tree, :filters, :created_ms, :key)";
const UPDATE: &str = "UPDATE jobs SET state = :state, attempt = :attempt, instance = :instance,
    is_cancelled = :is_cancelled, is_scanned = :is_scanned, lanes = :lanes, entries_done = :entries_done,
    entries_total = :entries_total, bytes_done = :bytes_done, bytes_total = :bytes_total, bytes_wire = :bytes_wire,
    bytes_resent = :bytes_resent, bytes_resumed = :bytes_resumed, failures = :failures, started_ms = :started_ms,
    finished_ms = :finished_ms, error = :error, changes = :changes WHERE id = :id";
const HISTORY_MAX: i64 = 10_000;
