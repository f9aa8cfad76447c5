//! Where the data of a sparse file lies.
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use std::os::fd::{AsFd, OwnedFd};

/// A range of a file that holds data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Number of bytes, at least one.
    pub length: u64,
}

/// The ranges of a file of `size` bytes that hold data, in order and apart from each other, rounded outwards to
/// multiples of `chunk` bytes and cut at `size`. All else is holes. A file system that cannot say gives one range.
#[must_use]
pub fn holes(file: &OwnedFd, size: u64, chunk: u64) -> Extents<'_> {
    Extents { file, at: 0, size, chunk: chunk.max(1), next: None }
}

/// Iterator of [`holes`]. It moves the file's offset.
#[derive(Debug)]
pub struct Extents<'a> {
    file: &'a OwnedFd,
    at: u64,
    size: u64,
    chunk: u64,
    /// Found, but perhaps touching the one after it.
    next: Option<Extent>,
}

impl Extents<'_> {
    /// The next range of data as the file system tells it, rounded outwards.
    fn find(&mut self) -> Option<Extent> {
        if self.at >= self.size {
            return None;
        }
        let start = match seek(self.file, self.at, Whence::SeekData) {
            Ok(start) => start,
            Err(Errno::ENXIO) => {
                self.at = self.size;
                return None;
            }
            Err(_) => self.at,
        };
        if start >= self.size {
            self.at = self.size;
            return None;
        }
        // At least one byte: a file that shrinks while it is asked must not hold the loop up.
        let end = seek(self.file, start, Whence::SeekHole).unwrap_or(self.size).clamp(start + 1, self.size);
        let offset = start - start % self.chunk;
        let limit = end.checked_next_multiple_of(self.chunk).unwrap_or(self.size).min(self.size);
        self.at = limit;
        Some(Extent { offset, length: limit - offset })
    }
}

impl Iterator for Extents<'_> {
    type Item = Extent;

    fn next(&mut self) -> Option<Extent> {
        let mut extent = self.next.take().or_else(|| self.find())?;
        while let Some(after) = self.find() {
            if after.offset > extent.offset + extent.length {
                self.next = Some(after);
                break;
            }
            extent.length = after.offset + after.length - extent.offset;
        }
        Some(extent)
    }
}

fn seek(file: &OwnedFd, offset: u64, whence: Whence) -> Result<u64, Errno> {
    let offset = i64::try_from(offset).map_err(|_| Errno::EINVAL)?;
    lseek(file.as_fd(), offset, whence).map(|found| found.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    #[test]
    fn data_is_found_between_holes() {
        let directory = tempfile::tempdir().unwrap();
        let file = File::create_new(directory.path().join("sparse")).unwrap();
        let size = (10 << 20) + 5;
        file.set_len(size).unwrap();
        file.write_all_at(b"x", 3 << 20).unwrap();
        file.write_all_at(b"x", (3 << 20) + (256 << 10)).unwrap();
        file.write_all_at(b"x", size - 1).unwrap();
        let file = OwnedFd::from(file);
        let found: Vec<_> = holes(&file, size, 512 << 10).collect();
        assert_eq!(
            found,
            [Extent { offset: 3 << 20, length: 512 << 10 }, Extent { offset: 10 << 20, length: 5 },]
        );
        assert_eq!(holes(&file, 0, 4096).count(), 0);
    }

    #[test]
    fn neighbours_are_joined_and_pipes_give_one_range() {
        let directory = tempfile::tempdir().unwrap();
        let file = File::create_new(directory.path().join("dense")).unwrap();
        file.write_all_at(&[1; 10_000], 0).unwrap();
        let file = OwnedFd::from(file);
        assert_eq!(holes(&file, 10_000, 1).collect::<Vec<_>>(), [Extent { offset: 0, length: 10_000 }]);
        let (reader, _writer) = std::io::pipe().unwrap();
        let pipe = OwnedFd::from(reader);
        assert_eq!(holes(&pipe, 10, 4).collect::<Vec<_>>(), [Extent { offset: 0, length: 10 }]);
    }
}
