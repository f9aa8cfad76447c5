//! The metadata of directories that must wait until everything inside has been dealt with. The scanner collects
//! it while it walks, the receiver from the packs; both within a bound of bytes.
use dwcp_abi::codec::{Reader, Writer};
use dwcp_abi::wire::{EntryHeader, EntryKind};

/// Records of 30 bytes, the path and what else is told, one after the other: about 90 bytes a directory in usual trees,
/// and 6 more for the order.
#[derive(Debug, Default)]
pub(super) struct Finals {
    bytes: Vec<u8>,
    /// Depth and start of each record.
    order: Vec<(u16, u32)>,
    bytes_max: u32,
    /// Directories that found no room.
    pub(super) dropped: u64,
}

impl Finals {
    /// Holds at most `bytes_max` bytes of records.
    pub(super) fn new(bytes_max: u32) -> Self {
        Self { bytes_max, ..Self::default() }
    }

    /// Remembers a directory; past the bound it only counts it, in `dropped`.
    pub(super) fn push(&mut self, header: &EntryHeader, path: &[u8], extra: &[u8]) {
        let mut head = [0; HEAD_BYTES];
        let start = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        let fits = start.saturating_add((HEAD_BYTES + path.len() + extra.len()) as u32) <= self.bytes_max;
        if !fits
            || write_head(header, (path.len() as u16, extra.len() as u32), &mut Writer::new(&mut head))
                .is_none()
        {
            self.dropped += 1;
            return;
        }
        let depth = path.iter().filter(|byte| **byte == b'/').count() as u16;
        self.order.push((depth, start));
        self.bytes.extend_from_slice(&head);
        self.bytes.extend_from_slice(path);
        self.bytes.extend_from_slice(extra);
    }

    /// Orders the records so that [`Finals::last`] meets the deepest first.
    pub(super) fn sort_by_depth(&mut self) {
        self.order.sort_by_key(|(depth, _)| *depth);
    }

    /// The record at the end of the order: the deepest after a sort, the youngest otherwise (a directory is found
    /// before what is inside it, so that also is deepest first).
    pub(super) fn last(&self) -> Option<(EntryHeader, &[u8], &[u8])> {
        let (_, start) = self.order.last()?;
        read_record(self.bytes.get(*start as usize..)?)
    }

    /// Forgets the record that [`Finals::last`] shows.
    pub(super) fn pop(&mut self) {
        self.order.pop();
    }
}

fn write_head(header: &EntryHeader, (length, extra): (u16, u32), writer: &mut Writer<'_>) -> Option<()> {
    writer.u32(header.mode).ok()?;
    writer.u32(header.uid).ok()?;
    writer.u32(header.gid).ok()?;
    writer.u32(header.mtime_ns).ok()?;
    writer.i64(header.mtime_s).ok()?;
    writer.u16(length).ok()?;
    writer.u32(extra).ok()
}

fn read_record(bytes: &[u8]) -> Option<(EntryHeader, &[u8], &[u8])> {
    let mut reader = Reader::new(bytes);
    let mut header = EntryHeader {
        kind: EntryKind::DirectoryFinal,
        flags: 0,
        name_length: 0,
        mode: reader.u32().ok()?,
        uid: reader.u32().ok()?,
        gid: reader.u32().ok()?,
        mtime_ns: reader.u32().ok()?,
        mtime_s: reader.i64().ok()?,
        size: 0,
        object: 0,
    };
    header.name_length = reader.u16().ok()?;
    let extra = reader.u32().ok()?;
    let path = reader.bytes(usize::from(header.name_length)).ok()?;
    Some((header, path, reader.bytes(extra as usize).ok()?))
}

const HEAD_BYTES: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;

    fn header(mode: u32) -> EntryHeader {
        let record = [0; HEAD_BYTES];
        let (header, _, _) = read_record(&record).unwrap();
        EntryHeader { mode, mtime_s: -1, ..header }
    }

    #[test]
    fn deepest_come_first_and_the_bound_holds() {
        let mut finals = Finals::new(3 * HEAD_BYTES as u32 + 9);
        for (mode, path) in [(1, &b"a"[..]), (2, b"b/c"), (3, b"bb"), (4, b"x")] {
            finals.push(&header(mode), path, &path[..1]);
        }
        assert_eq!(finals.dropped, 1);
        finals.sort_by_depth();
        let mut seen = Vec::new();
        while let Some((header, path, extra)) = finals.last() {
            assert_eq!((header.mtime_s, extra), (-1, &path[..1]));
            seen.push((header.mode, path.to_vec()));
            finals.pop();
        }
        assert_eq!(seen[0], (2, b"b/c".to_vec()));
        assert_eq!(seen.len(), 3);
    }
}
