//! What is in a file: read from its start and hashed, on the thread of a job that decides by content.
use nix::errno::Errno;
use nix::sys::uio::pread;
use std::os::fd::OwnedFd;

/// BLAKE3 of the first `size` bytes of a file, holes as zeros; none where it has fewer.
///
/// # Errors
/// It cannot be read.
pub fn digest_of(file: &OwnedFd, size: u64) -> Result<Option<[u8; 32]>, Errno> {
    let (mut hasher, mut buffer, mut at) = (blake3::Hasher::new(), vec![0; BUFFER_BYTES], 0);
    while at < size {
        let wanted = BUFFER_BYTES.min(usize::try_from(size - at).unwrap_or(BUFFER_BYTES));
        match pread(file, &mut buffer[..wanted], at as i64) {
            Ok(0) => return Ok(None),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                at += count as u64;
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(Some(*hasher.finalize().as_bytes()))
}

const BUFFER_BYTES: usize = 256 * 1024;
