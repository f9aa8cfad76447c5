//! The only thread that writes. Takes what waits, writes it in one transaction, then tells everybody.
use std::sync::mpsc::Receiver;

use rusqlite::Connection;

use super::{Change, Done, Request, StoreError, backup, schema};

/// Serves until every handle is gone.
pub(super) fn run(mut connection: Connection, inbox: Receiver<Request>) {
    let mut writes_since_prune = 0;
    while let Ok(first) = inbox.recv() {
        let mut batch = vec![first];
        batch.extend(inbox.try_iter().take(BATCH_MAX - 1));
        writes_since_prune += serve(&mut connection, batch);
        if writes_since_prune >= PRUNE_EVERY {
            writes_since_prune = 0;
            if let Err(error) = schema::prune(&connection) {
                tracing::warn!(component = "store", %error, "old jobs not removed");
            }
        }
    }
}

fn serve(connection: &mut Connection, batch: Vec<Request>) -> usize {
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
    let count = writes.len();
    let result = if count == 0 { Ok(()) } else { write_all(connection, writes) };
    for done in waiting {
        done(result.as_ref().copied().map_err(|error| StoreError::Operation(error.to_string())));
    }
    // A reader that went away does not need its answer.
    for read in reads {
        match read {
            Request::One { id, reply } => drop(reply.send(schema::one(connection, id).map_err(operation))),
            Request::Do { work } => work(connection),
            Request::Copy { target, reply } => drop(reply.send(backup::copy(connection, &target))),
            Request::ByKey { key, reply } => {
                drop(reply.send(schema::by_key(connection, &key).map_err(operation)));
            }
            Request::Page { query, reply } => {
                drop(reply.send(schema::page(connection, query).map_err(operation)))
            }
            Request::Probe { done } => done(schema::probe(connection).map_err(operation)),
            Request::Write { .. } => {}
        }
    }
    count
}

fn write_all(
    connection: &mut Connection,
    writes: Vec<(crate::jobs::JobRecord, Change)>,
) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction()?;
    for (record, change) in writes {
        match change {
            Change::Insert => schema::insert(&transaction, &record)?,
            Change::Update => schema::update(&transaction, &record)?,
        }
    }
    transaction.commit()
}

fn operation(error: rusqlite::Error) -> StoreError {
    StoreError::Operation(error.to_string())
}

const BATCH_MAX: usize = 256;
const PRUNE_EVERY: usize = 500;
