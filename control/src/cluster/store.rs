//! What a member keeps on disk: who it is in its cluster, and the records of its replica. SQLite in a file of its own,
//! in WAL mode with a flush at every commit; what waits together is made durable together. Used by the driver's thread
//! only. It is no part of `dwcp backup`: a replica that went back in time could vote twice.
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use dwcp_consensus::{Anchor, Ed25519, Key, Reader, Wire};
use rusqlite::{Connection, OptionalExtension};

/// Why the records cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// SQLite or the system says no.
    #[error("the cluster's records in {file} cannot be used: {reason}. Free the disk or mend its rights")]
    Unusable {
        /// The file.
        file: String,
        /// Why.
        reason: String,
    },
    /// They are not what was written.
    #[error(
        "the cluster's records in {file} are damaged ({what}): move the file away and join the cluster again \
         (`dwcp cluster token` at another member); it admits this node anew"
    )]
    Damaged {
        /// The file.
        file: String,
        /// What is.
        what: &'static str,
    },
}

/// Who this node is in its cluster.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) replica: u16,
    pub(super) cluster: [u8; 32],
    pub(super) signing: [u8; 32],
    pub(super) random: [u8; 32],
    pub(super) anchor: Anchor,
}

/// The open file.
#[derive(Debug)]
pub(super) struct Store {
    file: PathBuf,
    connection: Connection,
}

/// One change of the records.
#[derive(Debug)]
pub(super) enum Change {
    Put(Key, Vec<u8>),
    Remove(Key),
}

impl Store {
    /// Opens the records of a member; `None` where this node is none.
    pub(super) fn open(file: &Path) -> Result<Option<(Self, Identity)>, StoreError> {
        if !file.exists() {
            return Ok(None);
        }
        let store = Self { file: file.to_owned(), connection: connect(file)? };
        let row = store.unusable(|connection| {
            let sql = "SELECT replica, cluster, signing, random, anchor FROM identity";
            connection
                .query_row(sql, [], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get::<_, Vec<u8>>(4)?))
                })
                .optional()
        })?;
        // The file is made in one step: without an identity it was never used.
        let Some((replica, cluster, signing, random, anchor)) = row else { return Ok(None) };
        let anchor = Anchor::decoded(&anchor).map_err(|_| store.damaged("where it begins"))?;
        Ok(Some((store, Identity { replica, cluster, signing, random, anchor })))
    }

    /// Makes the records of a new member, in place of any others.
    pub(super) fn create(file: &Path, identity: &Identity) -> Result<(), StoreError> {
        remove(file)?;
        let store = Self { file: file.to_owned(), connection: connect(file)? };
        let anchor = identity.anchor.encoded();
        store.unusable(|connection| {
            let sql = "INSERT INTO identity (replica, cluster, signing, random, anchor) VALUES (?1, ?2, ?3, ?4, ?5)";
            let Identity { replica, cluster, signing, random, .. } = identity;
            connection.execute(sql, (replica, cluster, signing, random, &anchor))
        })?;
        Ok(())
    }

    /// Every record.
    pub(super) fn records(&self) -> Result<Vec<(Key, Vec<u8>)>, StoreError> {
        let rows: Vec<(Vec<u8>, Vec<u8>, Vec<u8>)> = self.unusable(|connection| {
            let mut statement = connection.prepare("SELECT key, sum, value FROM records")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            rows.collect()
        })?;
        let sound = rows.into_iter().map(|(key, sum, value)| {
            let key = Key::decoded(&key).map_err(|_| self.damaged("a record's name"))?;
            let is_whole = checksum(&value)[..] == sum[..];
            if is_whole { Ok((key, value)) } else { Err(self.damaged("a record's checksum")) }
        });
        sound.collect()
    }

    /// Makes changes durable, all or none.
    pub(super) fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let file = self.file.display().to_string();
        let commit = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            {
                let put = "INSERT OR REPLACE INTO records (key, sum, value) VALUES (?1, ?2, ?3)";
                let mut put = transaction.prepare_cached(put)?;
                let mut remove = transaction.prepare_cached("DELETE FROM records WHERE key = ?1")?;
                for change in changes {
                    match change {
                        Change::Put(key, value) => put.execute((key.encoded(), checksum(value), value))?,
                        Change::Remove(key) => remove.execute([key.encoded()])?,
                    };
                }
            }
            transaction.commit()
        };
        commit(&mut self.connection)
            .map_err(|error: rusqlite::Error| StoreError::Unusable { file, reason: error.to_string() })
    }

    fn unusable<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>,
    ) -> Result<T, StoreError> {
        let file = self.file.display().to_string();
        work(&self.connection).map_err(|error| StoreError::Unusable { file, reason: error.to_string() })
    }

    pub(super) fn damaged(&self, what: &'static str) -> StoreError {
        StoreError::Damaged { file: self.file.display().to_string(), what }
    }
}

/// Removes the records: this node is no member any more.
pub(super) fn remove(file: &Path) -> Result<(), StoreError> {
    for ending in ["", "-wal", "-shm"] {
        let mut name = file.as_os_str().to_owned();
        name.push(ending);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                let (file, reason) = (file.display().to_string(), error.to_string());
                return Err(StoreError::Unusable { file, reason });
            }
            _ => {}
        }
    }
    Ok(())
}

fn connect(file: &Path) -> Result<Connection, StoreError> {
    let open = || -> Result<Connection, Box<dyn std::error::Error>> {
        let connection = Connection::open(file)?;
        // The keys stand in it.
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(TABLES)?;
        Ok(connection)
    };
    open()
        .map_err(|error| StoreError::Unusable { file: file.display().to_string(), reason: error.to_string() })
}

fn checksum(value: &[u8]) -> [u8; 16] {
    let mut sum = [0; 16];
    sum.copy_from_slice(&blake3::hash(value).as_bytes()[..16]);
    sum
}

/// Where a record begins that is not whole, the whole record is refused: a vote that was forgotten could be cast twice.
const TABLES: &str = "CREATE TABLE IF NOT EXISTS identity (
    replica INTEGER NOT NULL,
    cluster BLOB NOT NULL,
    signing BLOB NOT NULL,
    random BLOB NOT NULL,
    anchor BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS records (
    key BLOB PRIMARY KEY,
    sum BLOB NOT NULL,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID";

/// Reads an anchor that another member wrote.
pub(super) fn read_anchor(bytes: &[u8]) -> Option<Anchor> {
    let mut reader = Reader::new(bytes);
    let anchor = Anchor::read(&mut reader).ok()?;
    let has_keys = anchor.plan.members.iter().all(|member| Ed25519::are_keys(&member.keys));
    (reader.left() == 0 && anchor.plan.is_sound() && has_keys).then_some(anchor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dwcp_consensus::{Digest, Member, Plan, ProtocolKind, ReplicaId};

    fn identity() -> Identity {
        let member = Member { replica: ReplicaId(0), keys: ([1; 32], [2; 32]), about: b"x"[..].into() };
        let plan = Plan::composed(0, ProtocolKind::Pbft, vec![member], None).unwrap();
        let anchor = Anchor { plan, position: 0, origin: Digest::default() };
        Identity { replica: 0, cluster: [3; 32], signing: [4; 32], random: [5; 32], anchor }
    }

    #[test]
    fn records_come_back_and_damage_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("cluster.db");
        assert!(Store::open(&file).unwrap().is_none());
        Store::create(&file, &identity()).unwrap();
        let (mut store, found) = Store::open(&file).unwrap().unwrap();
        assert_eq!((found.replica, found.cluster, found.anchor), (0, [3; 32], identity().anchor));
        let votes = Key::Protocol { kind: 2, number: 7 };
        store.commit(&[Change::Put(Key::Epoch, vec![1]), Change::Put(votes, vec![2; 100_000])]).unwrap();
        store.commit(&[Change::Put(votes, vec![3]), Change::Remove(Key::Stable)]).unwrap();
        drop(store);
        let (store, _) = Store::open(&file).unwrap().unwrap();
        let mut records = store.records().unwrap();
        records.sort();
        assert_eq!(records, [(votes, vec![3]), (Key::Epoch, vec![1])]);
        store.connection.execute("UPDATE records SET value = x'09' WHERE value = x'03'", []).unwrap();
        assert!(matches!(store.records(), Err(StoreError::Damaged { .. })));
        drop(store);
        remove(&file).unwrap();
        assert!(Store::open(&file).unwrap().is_none());
    }
}
