//! Rows of the tunnels that operators added. Part of the store.
use dwcp_config::Tunnel;
use rusqlite::{Connection, Row};

pub(super) const TABLE: &str = "CREATE TABLE tunnels (
    listen TEXT PRIMARY KEY,
    peer TEXT NOT NULL,
    target TEXT NOT NULL
) STRICT";

/// Every tunnel. A row that this version cannot read is left out, and said to be.
pub(super) fn all(connection: &Connection) -> rusqlite::Result<Vec<Tunnel>> {
    let mut statement = connection.prepare("SELECT * FROM tunnels ORDER BY listen")?;
    let read = statement.query_map([], row)?.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut tunnels = Vec::new();
    for read in read {
        match read {
            Ok(tunnel) => tunnels.push(tunnel),
            Err(error) => {
                tracing::error!(component = "store", error, "a tunnel cannot be read: add it again")
            }
        }
    }
    Ok(tunnels)
}

fn row(row: &Row<'_>) -> rusqlite::Result<Result<Tunnel, String>> {
    let (listen, peer, target): (String, String, String) =
        (row.get("listen")?, row.get("peer")?, row.get("target")?);
    Ok(Tunnel::new(&listen, &format!("{peer}:{target}")))
}

/// Keeps a tunnel.
pub(super) fn insert(connection: &Connection, tunnel: &Tunnel) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO tunnels (listen, peer, target) VALUES (?1, ?2, ?3)";
    connection.prepare_cached(sql)?.execute([&tunnel.listen.to_string(), &tunnel.peer, &tunnel.target])?;
    Ok(())
}

/// Forgets a tunnel.
pub(super) fn delete(connection: &Connection, listen: &str) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM tunnels WHERE listen = ?1")?.execute([listen])?;
    Ok(())
}
