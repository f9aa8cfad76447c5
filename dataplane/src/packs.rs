//! Filled packs that wait to be sent or acknowledged. Whichever worker has a lane sends them, so they are the
//! process's; a worker looks here twice a pack, not per chunk.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dwcp_engine::PackId;

/// Packs of the process by number.
#[derive(Debug, Default)]
pub struct PackTable {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    last: u64,
    packs: HashMap<PackId, Arc<Vec<u8>>>,
}

impl PackTable {
    /// Takes a pack in.
    pub fn insert(&self, pack: Vec<u8>) -> PackId {
        let mut kept = self.lock();
        kept.last += 1;
        let id = PackId(kept.last);
        kept.packs.insert(id, Arc::new(pack));
        id
    }

    /// The pack, while nobody removed it.
    pub fn get(&self, id: PackId) -> Option<Arc<Vec<u8>>> {
        self.lock().packs.get(&id).cloned()
    }

    /// Forgets the pack, and gives its room back unless somebody reads it at this moment.
    pub fn remove(&self, id: PackId) -> Option<Vec<u8>> {
        let pack = self.lock().packs.remove(&id)?;
        Arc::into_inner(pack)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
