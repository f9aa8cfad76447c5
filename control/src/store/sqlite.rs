//! The embedded database: one SQLite file that one process owns. Part of the store.
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql};

use super::database::{Database, Fault, Row, Value};
use super::{StoreError, layout};

/// An open file.
pub(super) struct Sqlite {
    pub(super) connection: Connection,
}

impl Sqlite {
    /// Opens or creates the file, checks it, and brings it to the newest layout.
    ///
    /// # Errors
    /// It cannot be used; the message says what to do.
    pub(super) fn open(file: &Path) -> Result<Self, StoreError> {
        let name = file.display().to_string();
        let unusable = |fault: Fault| StoreError::unusable(&name, &fault);
        let connection = Connection::open(file).map_err(|error| unusable(error.into()))?;
        let narrow = std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600));
        narrow.map_err(|error| unusable(Fault::Refused(error.to_string())))?;
        prepare(&connection).map_err(unusable)?;
        let mut database = Self { connection };
        layout::bring_up(&mut database, &name)?;
        Ok(database)
    }
}

impl Sqlite {
    /// Puts everything into the one file, without a log beside it, and closes it.
    pub(super) fn into_one_file(self) -> Result<(), Fault> {
        self.connection.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()))?;
        self.connection.close().map_err(|(_, error)| error.into())
    }
}

fn prepare(connection: &Connection) -> Result<(), Fault> {
    connection.busy_timeout(Duration::from_secs(2))?;
    // One process owns the file: a second one is told so instead of mixing its jobs in.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch("BEGIN EXCLUSIVE; COMMIT;")?;
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" { Ok(()) } else { Err(Fault::Damaged(verdict)) }
}

impl Database for Sqlite {
    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, Fault> {
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement.execute(rusqlite::params_from_iter(values))? as u64)
    }

    fn query(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, Fault> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let columns: Arc<[String]> = statement.column_names().map(String::from).collect();
        let mut rows = statement.query(rusqlite::params_from_iter(values))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let values = (0..columns.len()).map(|index| value(row.get_ref(index)?));
            found.push(Row { columns: Arc::clone(&columns), values: values.collect::<Result<_, _>>()? });
        }
        Ok(found)
    }

    fn begin(&mut self) -> Result<(), Fault> {
        Ok(self.connection.execute_batch("BEGIN")?)
    }

    fn commit(&mut self) -> Result<(), Fault> {
        Ok(self.connection.execute_batch("COMMIT")?)
    }

    fn rollback(&mut self) {
        // SQLite has rolled back by itself after some faults, and then says that there is nothing to roll back.
        drop(self.connection.execute_batch("ROLLBACK"));
    }

    fn layout(&mut self) -> Result<i64, Fault> {
        Ok(self.connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
    }

    fn migrate(&mut self, step: &str, number: usize) -> Result<(), Fault> {
        let whole = format!("BEGIN; {step}; PRAGMA user_version = {number}; COMMIT;");
        self.connection.execute_batch(&whole).inspect_err(|_| {
            drop(self.connection.execute_batch("ROLLBACK"));
        })?;
        Ok(())
    }

    fn probe(&mut self) -> Result<(), Fault> {
        let same = format!("BEGIN IMMEDIATE; PRAGMA user_version = {}; COMMIT;", layout::newest());
        self.connection.execute_batch(&same).inspect_err(|_| {
            // A transaction that could not be committed would hold up everything after it.
            drop(self.connection.execute_batch("ROLLBACK"));
        })?;
        Ok(())
    }

    fn copy(&mut self, target: &Path) -> Result<(), Fault> {
        let path = target.to_str().ok_or_else(|| Fault::Refused("the path of a copy is not UTF-8".into()))?;
        self.connection.execute("VACUUM INTO ?1", [path])?;
        Ok(())
    }

    fn settle(&mut self) -> Result<(), Fault> {
        // AUTOINCREMENT looks at what is there.
        Ok(())
    }
}

fn value(found: ValueRef<'_>) -> Result<Value, Fault> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec());
    Ok(match found {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(value) => Value::Integer(value),
        ValueRef::Text(bytes) => {
            Value::Text(text(bytes).map_err(|_| Fault::Damaged("a text is not UTF-8".into()))?)
        }
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
        ValueRef::Real(value) => return Err(Fault::Damaged(format!("a fraction, {value}"))),
    })
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(value) => ValueRef::Integer(*value),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseBusy) => Self::Owned,
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
                Self::Damaged(error.to_string())
            }
            _ => Self::Refused(error.to_string()),
        }
    }
}
