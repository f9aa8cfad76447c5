//! Copies of the store: made while it is in use, judged before they are trusted, put in place at the next start. Part of
//! the store; a copy is an ordinary SQLite file that anybody may open.
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::database::{Database, Fault, atomically};
use super::sqlite::Sqlite;
use super::thread::operation;
use super::{StoreError, layout};

/// What is in a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Number of migrations that it has seen.
    pub(crate) layout: i64,
    /// Transfers in it.
    pub(crate) transfers: u64,
    /// Of those, such that have not ended.
    pub(crate) unfinished: u64,
}

/// Writes a consistent copy to `target`, which must not exist.
pub(super) fn copy(database: &mut dyn Database, target: &Path) -> Result<(), StoreError> {
    database.copy(target).map_err(operation)?;
    // VACUUM INTO does not flush (SQLite documentation, lang_vacuum.html).
    let flushed = std::fs::File::open(target).and_then(|file| file.sync_all());
    flushed.map_err(|error| StoreError::Operation(error.to_string()))?;
    narrow(target)
}

/// Copies every row of every table; the tables of `to` are empty.
pub(super) fn copy_rows(from: &mut dyn Database, to: &mut dyn Database) -> Result<(), Fault> {
    atomically(to, |to| {
        for table in layout::TABLES {
            copy_table(from, to, table)?;
        }
        to.settle()
    })
}

/// Page by page: the history may be longer than memory is large.
fn copy_table(from: &mut dyn Database, to: &mut dyn Database, table: &str) -> Result<(), Fault> {
    let page = format!("SELECT * FROM {table} ORDER BY 1 LIMIT $1 OFFSET $2");
    for number in 0_u64.. {
        let rows = from.query(&page, &[PAGE_ROWS.into(), (number * PAGE_ROWS).into()])?;
        let Some(first) = rows.first() else { break };
        let places: Vec<String> = (1..=first.columns.len()).map(|place| format!("${place}")).collect();
        let (columns, places) = (first.columns.join(", "), places.join(", "));
        let insert = format!("INSERT INTO {table} ({columns}) VALUES ({places})");
        for row in &rows {
            to.execute(&insert, &row.values)?;
        }
    }
    Ok(())
}

/// Gives a server what a copy holds that waits; what was there is kept as a copy beside it, under the name that is given
/// back.
///
/// # Errors
/// The copy is not usable, or the server did not take it; the server is then as it was.
pub(super) fn import_pending(
    database: &mut dyn Database,
    store: &Path,
    now_ms: u64,
) -> Result<Option<PathBuf>, StoreError> {
    let pending = pending(store);
    if !pending.exists() {
        return Ok(None);
    }
    let refused = |reason: String| StoreError::Copy { file: pending.display().to_string(), reason };
    let kept = store.with_extension(format!("db.pre-restore-{now_ms}"));
    let imported = inspect(&pending).and_then(|_| {
        copy(database, &kept)?;
        let mut file = Sqlite::open(&pending)?;
        let replaced = atomically(database, |database| replace_rows(&mut file, database));
        replaced.map_err(|fault| refused(fault.to_string()))
    });
    let name = if imported.is_ok() { "db.restored" } else { "db.rejected" };
    std::fs::rename(&pending, store.with_extension(name)).map_err(|error| refused(error.to_string()))?;
    imported.map(|()| Some(kept))
}

fn replace_rows(from: &mut dyn Database, to: &mut dyn Database) -> Result<(), Fault> {
    for table in layout::TABLES {
        to.execute(&format!("DELETE FROM {table}"), &[])?;
    }
    for table in layout::TABLES {
        copy_table(from, to, table)?;
    }
    to.settle()
}

/// Opens a copy without writing to it, and checks all of it.
///
/// # Errors
/// It is damaged, of a later version, or no store at all.
pub(crate) fn inspect(file: &Path) -> Result<Facts, StoreError> {
    let unusable = |reason: String| StoreError::Copy { file: file.display().to_string(), reason };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags).map_err(|error| unusable(error.to_string()))?;
    let ask = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let verdict = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0));
    let verdict = verdict.map_err(|error| unusable(error.to_string()))?;
    if verdict != "ok" {
        return Err(unusable(format!("it is damaged: {verdict}")));
    }
    let layout = ask("PRAGMA user_version").map_err(|error| unusable(error.to_string()))?;
    let known = layout::newest();
    if layout > known {
        return Err(unusable(format!(
            "it is of a later version (layout {layout}, this one knows {known}): restore it with that version"
        )));
    }
    let count = |sql: &str| {
        ask(sql)
            .map(|count| count.unsigned_abs())
            .map_err(|error| unusable(format!("it is no job store: {error}")))
    };
    Ok(Facts {
        layout,
        transfers: count("SELECT count(*) FROM jobs")?,
        unfinished: count("SELECT count(*) FROM jobs WHERE finished_ms IS NULL")?,
    })
}

/// Where a copy waits for the next start.
pub(crate) fn pending(store: &Path) -> PathBuf {
    store.with_extension("db.pending")
}

/// Puts a copy that waits into the store's place, before the store is opened. What was there is kept beside it under
/// the name that is given back.
///
/// # Errors
/// The copy is not usable; the store is then as it was, and the copy has another name.
pub(super) fn adopt_pending(store: &Path, now_ms: u64) -> Result<Option<PathBuf>, StoreError> {
    let pending = pending(store);
    if !pending.exists() {
        return Ok(None);
    }
    let system = |error: std::io::Error| StoreError::Copy {
        file: pending.display().to_string(),
        reason: error.to_string(),
    };
    if let Err(error) = inspect(&pending) {
        std::fs::rename(&pending, store.with_extension("db.rejected")).map_err(system)?;
        return Err(error);
    }
    let kept = store.with_extension(format!("db.pre-restore-{now_ms}"));
    for suffix in ["", "-wal", "-shm"] {
        let from = with_suffix(store, suffix);
        if from.exists() {
            std::fs::rename(&from, with_suffix(&kept, suffix)).map_err(system)?;
        }
    }
    std::fs::rename(&pending, store).map_err(system)?;
    if let Some(directory) = store.parent() {
        std::fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(system)?;
    }
    Ok(Some(kept))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn narrow(file: &Path) -> Result<(), StoreError> {
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600))
        .map_err(|error| StoreError::Operation(error.to_string()))
}

const PAGE_ROWS: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    /// Without the store's thread, which would close the file some time later.
    fn store(file: &Path) {
        drop(Sqlite::open(file).unwrap());
    }

    #[test]
    fn a_copy_waits_and_is_put_in_place_while_the_old_one_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("control.db");
        let mut database = Sqlite::open(&file).unwrap();
        database.connection.execute("INSERT INTO jobs (direction, peer, sources, destination, streams, created_ms) VALUES ('send', 'a', x'', x'61', 0, 1)", []).unwrap();
        copy(&mut database, &pending(&file)).unwrap();
        database.connection.execute("DELETE FROM jobs", []).unwrap();
        drop(database);
        assert_eq!(inspect(&pending(&file)).unwrap().transfers, 1);
        let kept = adopt_pending(&file, 77).unwrap().unwrap();
        assert!(kept.ends_with("control.db.pre-restore-77") && kept.exists(), "{}", kept.display());
        assert_eq!(inspect(&file).unwrap(), Facts { layout: layout::newest(), transfers: 1, unfinished: 1 });
        assert_eq!(inspect(&kept).unwrap().transfers, 0);
        assert_eq!(adopt_pending(&file, 78).unwrap(), None);
        store(&file);
    }

    #[test]
    fn what_is_no_copy_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("control.db");
        store(&file);
        let before = std::fs::read(&file).unwrap();
        for bytes in [&b"no database at all"[..], b"", &before[..before.len() / 2]] {
            std::fs::write(pending(&file), bytes).unwrap();
            assert!(adopt_pending(&file, 1).is_err(), "{} bytes", bytes.len());
            assert!(!pending(&file).exists() && file.with_extension("db.rejected").exists());
        }
        assert_eq!(std::fs::read(&file).unwrap(), before);
        let later = Connection::open(pending(&file)).unwrap();
        later.execute_batch("CREATE TABLE jobs (finished_ms); PRAGMA user_version = 999").unwrap();
        drop(later);
        let error = adopt_pending(&file, 1).unwrap_err().to_string();
        assert!(error.contains("later version"), "{error}");
    }
}
