//! Maps of kept versions, drawn when they are kept: the next version can be searched for differences at once. A map is good
//! as long as nobody has touched the file; then its content need not be hashed again either.
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use dwcp_abi::wire::ContentId;

use super::{FileBaseline, Map};
use crate::tree::Fingerprint;

/// The latest maps.
#[derive(Default)]
pub(super) struct Maps {
    drawn: Mutex<VecDeque<(ContentId, Fingerprint, Map)>>,
}

/// Memory of all maps together: those of 200 MB that are searched whole, or of 12 GB that are not.
const MAPS_BYTES_MAX: usize = 24 << 20;

impl Maps {
    /// The map of a version, drawn now where it is not known; none where the file is not what its name says.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn of(
        &self,
        content: ContentId,
        file: impl AsFd,
        baseline: &FileBaseline,
    ) -> io::Result<Option<Map>> {
        let seen = Fingerprint::of_file(file)?;
        let known = |(other, fingerprint, _): &&(ContentId, Fingerprint, Map)| {
            *other == content && *fingerprint == seen
        };
        if let Some((_, _, map)) = self.lock().iter().find(known) {
            return Ok(Some(map.clone()));
        }
        let Some(map) = Map::draw(baseline)? else { return Ok(None) };
        let mut drawn = self.lock();
        drawn.push_front((content, seen, map.clone()));
        let mut bytes = 0;
        let room = drawn.iter().take_while(|(_, _, map)| {
            bytes += map.memory_bytes();
            bytes <= MAPS_BYTES_MAX
        });
        let room = room.count();
        drawn.truncate(room);
        Ok(Some(map))
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<(ContentId, Fingerprint, Map)>> {
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
