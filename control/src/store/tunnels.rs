//! Rows of the tunnels that operators added. Part of the store.
use dwcp_config::Tunnel;

use super::database::{Database, Fault};

pub(super) const TABLE: &str = "CREATE TABLE tunnels (
    listen TEXT PRIMARY KEY,
    peer TEXT NOT NULL,
    target TEXT NOT NULL
) STRICT";

/// Every tunnel. A row that this version cannot read is left out, and said to be.
pub(super) fn all(database: &mut dyn Database) -> Result<Vec<Tunnel>, Fault> {
    let mut tunnels = Vec::new();
    for row in database.query("SELECT * FROM tunnels ORDER BY listen", &[])? {
        let (listen, peer, target) = (row.text("listen")?, row.text("peer")?, row.text("target")?);
        match Tunnel::new(&listen, &format!("{peer}:{target}")) {
            Ok(tunnel) => tunnels.push(tunnel),
            Err(error) => {
                tracing::error!(component = "store", error, "a tunnel cannot be read: add it again")
            }
        }
    }
    Ok(tunnels)
}

/// Keeps a tunnel.
pub(super) fn insert(database: &mut dyn Database, tunnel: &Tunnel) -> Result<(), Fault> {
    let sql = "INSERT INTO tunnels (listen, peer, target) VALUES ($1, $2, $3)
        ON CONFLICT (listen) DO UPDATE SET peer = excluded.peer, target = excluded.target";
    let listen = tunnel.listen.to_string();
    database.execute(sql, &[(&listen).into(), (&tunnel.peer).into(), (&tunnel.target).into()])?;
    Ok(())
}

/// Forgets the tunnel at an address.
pub(super) fn delete(database: &mut dyn Database, listen: &str) -> Result<(), Fault> {
    database.execute("DELETE FROM tunnels WHERE listen = $1", &[listen.into()])?;
    Ok(())
}
