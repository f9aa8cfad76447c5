//! Rows of API keys and of the audit log. Part of the store.
use dwcp_api::Role;

use super::database::{Database, Fault, Row};
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
pub(super) fn keys(database: &mut dyn Database) -> Result<Vec<ApiKey>, Fault> {
    database.query("SELECT * FROM api_keys ORDER BY id", &[])?.iter().map(key).collect()
}

fn key(row: &Row) -> Result<ApiKey, Fault> {
    let role = row.text("role")?;
    let known = Role::ALL.into_iter().find(|known| known.name() == role);
    let digest = row.bytes("digest")?;
    Ok(ApiKey {
        id: row.text("id")?,
        name: row.text("name")?,
        // A role that this version does not know may do the least.
        role: known.unwrap_or(Role::Read),
        digest: digest.try_into().map_err(|_| Fault::Damaged("the digest of a key".into()))?,
        created_ms: row.number("created_ms")?,
        expires_ms: row.optional_integer("expires_ms")?.map(i64::cast_unsigned),
    })
}

/// Keeps a key.
pub(super) fn insert_key(database: &mut dyn Database, key: &ApiKey) -> Result<(), Fault> {
    let sql = "INSERT INTO api_keys (id, name, role, digest, created_ms, expires_ms)
        VALUES ($1, $2, $3, $4, $5, $6)";
    let values = [
        (&key.id).into(),
        (&key.name).into(),
        key.role.name().into(),
        key.digest.to_vec().into(),
        key.created_ms.into(),
        key.expires_ms.into(),
    ];
    database.execute(sql, &values)?;
    Ok(())
}

/// Forgets a key.
pub(super) fn delete_key(database: &mut dyn Database, id: &str) -> Result<(), Fault> {
    database.execute("DELETE FROM api_keys WHERE id = $1", &[id.into()])?;
    Ok(())
}

/// Adds a line to the audit log, and removes the oldest beyond the bound.
pub(super) fn audit(database: &mut dyn Database, record: &AuditRecord) -> Result<(), Fault> {
    let sql = "INSERT INTO audit (at_ms, who, role, method, path, status, request_id)
        VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let values = [
        record.at_ms.into(),
        (&record.who).into(),
        (&record.role).into(),
        (&record.method).into(),
        (&record.path).into(),
        record.status.into(),
        (&record.request_id).into(),
    ];
    database.execute(sql, &values)?;
    let old = "DELETE FROM audit WHERE number <= (SELECT max(number) FROM audit) - $1";
    database.execute(old, &[AUDIT_MAX.into()])?;
    Ok(())
}

/// The newest lines of the audit log, newest first.
pub(super) fn audited(database: &mut dyn Database, limit: u16) -> Result<Vec<AuditRecord>, Fault> {
    let rows = database.query("SELECT * FROM audit ORDER BY number DESC LIMIT $1", &[limit.into()])?;
    let record = |row: &Row| {
        Ok(AuditRecord {
            at_ms: row.number("at_ms")?,
            who: row.text("who")?,
            role: row.text("role")?,
            method: row.text("method")?,
            path: row.text("path")?,
            status: row.small("status")?,
            request_id: row.text("request_id")?,
        })
    };
    rows.iter().map(record).collect()
}

const AUDIT_MAX: u64 = 100_000;
