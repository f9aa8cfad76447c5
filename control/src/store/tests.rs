//! The embedded store when the power fails at any write, when the disk is full, and when time passes.
use std::path::Path;
use std::sync::Arc;

use dwcp_api::{Direction, PathText, TransferOptions, TransferState};

use super::database::{Database, Fault, atomically};
use super::sqlite::Sqlite;
use super::{PageQuery, jobs};
use crate::jobs::{JobRecord, JobRequest};

fn job(id: u64, finished_ms: Option<u64>) -> JobRecord {
    let request = JobRequest {
        direction: Direction::Send,
        peer: "paris".into(),
        sources: vec![PathText::new(b"/srv/a").unwrap()],
        destination: PathText::new(b"in").unwrap(),
        options: TransferOptions::default(),
    };
    let mut record = JobRecord::new(id, Arc::new(request), 1);
    record.finished_ms = finished_ms;
    if finished_ms.is_some() {
        record.state = TransferState::Done;
    }
    record
}

fn insert(database: &mut dyn Database, ids: std::ops::Range<u64>) -> Result<(), Fault> {
    atomically(database, |database| ids.into_iter().try_for_each(|id| jobs::insert(database, &job(id, None))))
}

fn ids(database: &mut dyn Database) -> Vec<u64> {
    let query = PageQuery { state: None, below: None, limit: 1000 };
    let mut ids: Vec<u64> = jobs::page(database, query).unwrap().iter().map(|job| job.id).collect();
    ids.reverse();
    ids
}

/// What is on disk after a power failure is some part of what was written, in order: SQLite's log is cut at every frame
/// and within every frame. Whatever was acknowledged before the cut is there, and nothing is there in part.
#[test]
fn the_power_may_fail_at_every_write() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("control.db");
    let log = directory.path().join("control.db-wal");
    let mut database = Sqlite::open(&file).unwrap();
    // From here on everything is in the log alone.
    database.connection.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    database.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let mut acknowledged = vec![(0, Vec::new())];
    let mut next = 1;
    for batch in [1, 3, 1, 20, 2] {
        insert(&mut database, next..next + batch).unwrap();
        next += batch;
        acknowledged.push((log.metadata().unwrap().len(), (1..next).collect::<Vec<u64>>()));
    }
    let (base, written) = (std::fs::read(&file).unwrap(), std::fs::read(&log).unwrap());
    drop(database);
    let frames = (LOG_HEADER_BYTES..=written.len()).step_by(LOG_FRAME_BYTES);
    let cuts = frames.flat_map(|frame| [frame, frame + 7, frame + LOG_FRAME_BYTES / 2]);
    for cut in cuts.filter(|cut| *cut <= written.len()).chain([0, 5, written.len()]) {
        let crashed = directory.path().join(format!("cut-{cut}.db"));
        std::fs::write(&crashed, &base).unwrap();
        let mut torn = written[..cut].to_vec();
        // What was being written when the power went may be anything.
        torn.resize(cut + 64, 0xa5);
        std::fs::write(crashed.with_extension("db-wal"), &torn).unwrap();
        let found = ids(&mut Sqlite::open(&crashed).unwrap());
        let (_, expected) = acknowledged.iter().rev().find(|(length, _)| *length <= cut as u64).unwrap();
        assert_eq!(&found, expected, "cut at {cut}");
    }
}

#[test]
fn a_full_disk_refuses_whole_batches_and_hinders_nothing_afterwards() {
    let directory = tempfile::tempdir().unwrap();
    let mut database = Sqlite::open(&directory.path().join("control.db")).unwrap();
    insert(&mut database, 1..2).unwrap();
    let pages: i64 = database.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    let limit = |database: &Sqlite, pages: i64| {
        database.connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
    };
    limit(&database, pages);
    let refused = insert(&mut database, 2..200).unwrap_err();
    assert!(refused.to_string().contains("full"), "{refused}");
    assert_eq!(ids(&mut database), [1]);
    assert!(database.probe().is_ok(), "what needs no room is taken");
    limit(&database, pages + 1000);
    insert(&mut database, 2..200).unwrap();
    assert_eq!(ids(&mut database).len(), 199);
}

#[test]
fn what_is_no_store_is_said_to_be_none() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("control.db");
    let open = |file: &Path| Sqlite::open(file).map(drop).map_err(|error| error.to_string());
    open(&file).unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    for at in (4096..bytes.len()).step_by(512) {
        bytes[at] ^= 0xff;
    }
    std::fs::write(&file, bytes).unwrap();
    let said = open(&file).unwrap_err();
    assert!(said.contains("mv ") && said.contains("control.db"), "{said}");
    std::fs::write(&file, b"no database at all, and long enough to be looked at as one: ....").unwrap();
    assert!(open(&file).unwrap_err().contains("not a database"));
}

#[test]
fn old_transfers_go_and_the_newest_and_the_unfinished_stay() {
    let directory = tempfile::tempdir().unwrap();
    let mut database = Sqlite::open(&directory.path().join("control.db")).unwrap();
    for (id, finished_ms) in [(1, Some(10)), (2, None), (3, Some(30)), (4, Some(20)), (5, Some(10))] {
        jobs::insert(&mut database, &job(id, finished_ms)).unwrap();
    }
    assert_eq!(jobs::prune(&mut database, 20), Ok(1));
    assert_eq!(ids(&mut database), [2, 3, 4, 5]);
    assert_eq!(jobs::prune(&mut database, u64::MAX >> 1), Ok(2));
    assert_eq!(ids(&mut database), [2, 5]);
    assert_eq!(jobs::recover(&mut database).unwrap().next_id, 6);
}

/// SQLite documentation, fileformat2.html, section 4.1: a header, then frames of a header and a page.
const LOG_HEADER_BYTES: usize = 32;
const LOG_FRAME_BYTES: usize = 24 + 4096;
