//! The store's thread: takes what waits, writes it in one transaction, then answers reads.
use std::sync::mpsc::Receiver;

use super::database::{Database, Fault, atomically};
use super::{Change, Done, Request, StoreError, backup, jobs};
use crate::jobs::JobRecord;

/// Serves until every handle is gone.
pub(super) fn run(mut database: Box<dyn Database>, inbox: Receiver<Request>) {
    while let Ok(first) = inbox.recv() {
        let mut batch = vec![first];
        batch.extend(inbox.try_iter().take(BATCH_MAX - 1));
        serve(&mut *database, batch);
    }
}

fn serve(database: &mut dyn Database, batch: Vec<Request>) {
    let mut waiting: Vec<Done> = Vec::new();
    let mut reads = Vec::new();
    let mut writes = Vec::new();
    for request in batch {
        match request {
            Request::Write { record, change, done } => {
                writes.push((record, change));
                waiting.push(done);
            }
            read => reads.push(read),
        }
    }
    let result = if writes.is_empty() { Ok(()) } else { write_all(database, &writes) };
    for done in waiting {
        done(result.clone().map_err(operation));
    }
    // A reader that went away does not need its answer.
    for read in reads {
        match read {
            Request::One { id, reply } => drop(reply.send(jobs::one(database, id).map_err(operation))),
            Request::Do { work } => work(database),
            Request::Copy { target, reply } => drop(reply.send(backup::copy(database, &target))),
            Request::ByKey { key, reply } => {
                drop(reply.send(jobs::by_key(database, &key).map_err(operation)));
            }
            Request::Page { query, reply } => {
                drop(reply.send(jobs::page(database, query).map_err(operation)))
            }
            Request::Probe { done } => done(database.probe().map_err(operation)),
            Request::Prune { before_ms } => match jobs::prune(database, before_ms) {
                Ok(0) => {}
                Ok(removed) => tracing::info!(component = "store", removed, "old transfers removed"),
                Err(error) => tracing::warn!(component = "store", %error, "old transfers not removed"),
            },
            Request::Write { .. } => {}
        }
    }
}

fn write_all(database: &mut dyn Database, writes: &[(JobRecord, Change)]) -> Result<(), Fault> {
    atomically(database, |database| {
        for (record, change) in writes {
            match change {
                Change::Insert => jobs::insert(database, record)?,
                Change::Update => jobs::update(database, record)?,
            }
        }
        Ok(())
    })
}

pub(super) fn operation(fault: Fault) -> StoreError {
    StoreError::Operation(fault.to_string())
}

const BATCH_MAX: usize = 256;
