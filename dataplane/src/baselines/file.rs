//! A baseline that lies in a file.
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use dwcp_abi::wire::ContentId;
use dwcp_hde::{Baseline, BaselineError, id_of_digest};

/// A file with the name of its content. Nobody keeps others from writing to it: whoever uses it checks what comes of it.
#[derive(Debug)]
pub struct FileBaseline {
    file: File,
    id: ContentId,
    length: u64,
}

impl FileBaseline {
    /// A file whose content was named before.
    #[must_use]
    pub fn new(file: OwnedFd, id: ContentId, length: u64) -> Self {
        Self { file: File::from(file), id, length }
    }

    /// Whether its content is that of its name.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn verify(&self) -> io::Result<bool> {
        Ok(name_content(&self.file, self.length)? == Some(self.id))
    }

    /// All of it in memory, whatever it is by now.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn load(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.length as usize];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Whether this is the content of its name.
    #[must_use]
    pub fn is(&self, bytes: &[u8]) -> bool {
        dwcp_hde::content_id(bytes) == self.id
    }
}

impl Baseline for FileBaseline {
    fn id(&self) -> ContentId {
        self.id
    }

    fn length(&self) -> u64 {
        self.length
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), BaselineError> {
        let length = out.len();
        self.file.read_exact_at(out, offset).map_err(|_| BaselineError { offset, length })
    }
}

/// The name of a file's content; none where the file is not `length` bytes long.
pub(super) fn name_content(file: &File, length: u64) -> io::Result<Option<ContentId>> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut at = 0;
    loop {
        let count = file.read_at(&mut buffer, at)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        at += count as u64;
        if at > length {
            break;
        }
    }
    Ok((at == length).then(|| id_of_digest(hasher.finalize().as_bytes())))
}

/// Bytes that are read and hashed at once: they stay in the cache between the two.
const READ_BYTES: usize = 256 * 1024;
