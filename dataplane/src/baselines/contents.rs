//! Names of the contents of files that the receiver put in place or looked at: what was hashed once is not hashed again
//! while nobody has touched the file.
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use dwcp_abi::wire::{ContentId, Held};

use super::file::name_content;
use crate::tree::Fingerprint;

/// What is known of files. Forgotten when there are many.
#[derive(Debug, Default)]
pub struct Contents {
    names: Mutex<HashMap<Fingerprint, ContentId>>,
}

/// Files whose content is remembered, about 100 bytes each.
const FILES_MAX: usize = 65_536;

/// Longest file that is hashed to find out what it is: its sender waits so long, and would give up.
const HASHED_BYTES_MAX: u64 = 16 << 30;

impl Contents {
    /// The content of a file, which is read where that is not known. [`Held::NOTHING`] where it is too long for that, or
    /// changes meanwhile.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of(&self, file: OwnedFd) -> io::Result<(File, Held)> {
        let before = Fingerprint::of_file(&file)?;
        let (file, length) = (File::from(file), before.size.unsigned_abs());
        if let Some(&content) = self.lock().get(&before) {
            return Ok((file, Held { content, length }));
        }
        let named = if length > HASHED_BYTES_MAX { None } else { name_content(&file, length)? };
        let Some(content) = named.filter(|_| Fingerprint::of_file(&file).is_ok_and(|after| after == before))
        else {
            return Ok((file, Held::NOTHING));
        };
        self.remember(before, content);
        Ok((file, Held { content, length }))
    }

    /// A file has been put in place whose digest was checked.
    pub fn note(&self, file: &OwnedFd, content: ContentId) {
        if let Ok(fingerprint) = Fingerprint::of_file(file) {
            self.remember(fingerprint, content);
        }
    }

    fn remember(&self, fingerprint: Fingerprint, content: ContentId) {
        let mut names = self.lock();
        if names.len() >= FILES_MAX {
            names.clear();
        }
        names.insert(fingerprint, content);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Fingerprint, ContentId>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_it_was_until_it_is_touched() {
        let space = tempfile::tempdir().unwrap();
        let path = space.path().join("f");
        let open = || OwnedFd::from(File::open(&path).unwrap());
        let contents = Contents::default();
        std::fs::write(&path, b"content").unwrap();
        let (_, held) = contents.of(open()).unwrap();
        assert_eq!(held, Held { content: dwcp_hde::content_id(b"content"), length: 7 });
        assert_eq!(contents.lock().len(), 1);
        assert_eq!(contents.of(open()).unwrap().1, held);
        std::fs::write(&path, b"changed").unwrap();
        assert_eq!(contents.of(open()).unwrap().1.content, dwcp_hde::content_id(b"changed"));
        contents.note(&open(), ContentId([1; 16]));
        assert_eq!(contents.of(open()).unwrap().1.content, ContentId([1; 16]), "it is not hashed again");
    }
}
