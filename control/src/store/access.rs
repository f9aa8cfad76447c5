//! Rows of API keys and of the audit log. Part of the store.
use dwcp_api::Role;
use rusqlite::{Connection, Row, named_params};

use crate::access::{ApiKey, AuditRecord};

pub(super) const TABLES: &str = "CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    digest BLOB NOT NULL,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER
) STRICT;
CREATE TABLE audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,
    who TEXT NOT NULL,
    role TEXT NOT NULL,
    method TEXT NOT NULL,
    path TEXT NOT NULL,
    status INTEGER NOT NULL,
    request_id TEXT NOT NULL
) STRICT";

/// Every key.
pub(super) fn keys(connection: &Connection) -> rusqlite::Result<Vec<ApiKey>> {
    let mut statement = connection.prepare("SELECT * FROM api_keys ORDER BY id")?;
    statement.query_map([], key)?.collect()
}

fn key(row: &Row<'_>) -> rusqlite::Result<ApiKey> {
    let role: String = row.get("role")?;
    let known = Role::ALL.into_iter().find(|known| known.name() == role);
    Ok(ApiKey {
        id: row.get("id")?,
        name: row.get("name")?,
        // A role that this version does not know may do the least.
        role: known.unwrap_or(Role::Read),
        digest: row.get("digest")?,
        created_ms: row.get::<_, i64>("created_ms")?.cast_unsigned(),
        expires_ms: row.get::<_, Option<i64>>("expires_ms")?.map(i64::cast_unsigned),
    })
}

/// Keeps a key.
pub(super) fn insert_key(connection: &Connection, key: &ApiKey) -> rusqlite::Result<()> {
    let sql = "INSERT INTO api_keys (id, name, role, digest, created_ms, expires_ms)
        VALUES (:id, :name, :role, :digest, :created_ms, :expires_ms)";
    connection.prepare_cached(sql)?.execute(named_params! {
        ":id": key.id, ":name": key.name, ":role": key.role.name(), ":digest": key.digest.as_slice(),
        ":created_ms": key.created_ms.cast_signed(), ":expires_ms": key.expires_ms.map(u64::cast_signed),
    })?;
    Ok(())
}

/// Forgets a key.
pub(super) fn delete_key(connection: &Connection, id: &str) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM api_keys WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// Adds a line to the audit log, and removes the oldest beyond the bound.
pub(super) fn audit(connection: &Connection, record: &AuditRecord) -> rusqlite::Result<()> {
    let sql = "INSERT INTO audit (at_ms, who, role, method, path, status, request_id)
        VALUES (:at_ms, :who, :role, :method, :path, :status, :request_id)";
    connection.prepare_cached(sql)?.execute(named_params! {
        ":at_ms": record.at_ms.cast_signed(), ":who": record.who, ":role": record.role, ":method": record.method,
        ":path": record.path, ":status": record.status, ":request_id": record.request_id,
    })?;
    let old = "DELETE FROM audit WHERE number <= (SELECT max(number) FROM audit) - ?1";
    connection.prepare_cached(old)?.execute([AUDIT_MAX])?;
    Ok(())
}

/// The newest lines of the audit log, newest first.
pub(super) fn audited(connection: &Connection, limit: u16) -> rusqlite::Result<Vec<AuditRecord>> {
    let mut statement = connection.prepare_cached("SELECT * FROM audit ORDER BY number DESC LIMIT ?1")?;
    let record = |row: &Row<'_>| {
        Ok(AuditRecord {
            at_ms: row.get::<_, i64>("at_ms")?.cast_unsigned(),
            who: row.get("who")?,
            role: row.get("role")?,
            method: row.get("method")?,
            path: row.get("path")?,
            status: row.get("status")?,
            request_id: row.get("request_id")?,
        })
    };
    statement.query_map([limit], record)?.collect()
}

const AUDIT_MAX: i64 = 100_000;
