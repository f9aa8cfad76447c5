//! Which chunks of an object its receiver holds already.
use super::CHUNK_BYTES;
use crate::codec::{CodecError, Encoded, Reader, Writer};

/// Most ranges of one list. What does not fit is sent again.
pub const CHUNK_RANGES_MAX: usize = 512;

/// A list of ranges of chunks, ascending and apart from each other.
///
/// ```text
///  ┌───────┬──────────────┬──────────────┬───┐
///  │ count │ first u32    │ end u32      │ … │   `count` (u16) times; `end` is one past the last
///  └───────┴──────────────┴──────────────┴───┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRanges {
    ranges: [(u32, u32); CHUNK_RANGES_MAX],
    count: u16,
}

impl ChunkRanges {
    /// No chunk.
    pub const NONE: Self = Self { ranges: [(0, 0); CHUNK_RANGES_MAX], count: 0 };

    /// The whole chunks of these ranges of bytes, which ascend, as far as there is room. `size` is the object's: its
    /// last chunk may be short.
    pub fn of_bytes(ranges: impl IntoIterator<Item = (u64, u64)>, size: u64) -> Self {
        let chunk = u64::from(CHUNK_BYTES);
        let mut list = Self::NONE;
        for (start, end) in ranges {
            let end = if end >= size { size.div_ceil(chunk) } else { end / chunk };
            let (Ok(first), Ok(end)) = (u32::try_from(start.div_ceil(chunk)), u32::try_from(end)) else {
                break;
            };
            if !list.push(first, end) {
                break;
            }
        }
        list
    }

    /// The ranges in bytes of an object of this size; what lies beyond it is left out.
    pub fn bytes(&self, size: u64) -> impl Iterator<Item = (u64, u64)> {
        let chunk = u64::from(CHUNK_BYTES);
        let ranges = self.ranges[..usize::from(self.count)].iter();
        ranges
            .map(move |&(first, end)| (u64::from(first) * chunk, (u64::from(end) * chunk).min(size)))
            .filter(|(start, end)| start < end)
    }

    /// Whether there is no range.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// False when there is no room. An empty range adds nothing, one that touches the last is joined to it.
    fn push(&mut self, first: u32, end: u32) -> bool {
        if first >= end {
            return true;
        }
        let at = usize::from(self.count);
        if let Some(last) = at.checked_sub(1).and_then(|last| self.ranges.get_mut(last))
            && first <= last.1
        {
            last.1 = last.1.max(end);
            return true;
        }
        let Some(slot) = self.ranges.get_mut(at) else { return false };
        *slot = (first, end);
        self.count += 1;
        true
    }
}

impl<'a> Encoded<'a> for ChunkRanges {
    fn read(reader: &mut Reader<'a>) -> Result<Self, CodecError> {
        let count = reader.u16()?;
        if usize::from(count) > CHUNK_RANGES_MAX {
            let max = CHUNK_RANGES_MAX as u64;
            return Err(CodecError::TooLarge { field: "ranges", value: u64::from(count), max });
        }
        let mut list = Self { count, ..Self::NONE };
        let mut least = 0;
        for range in &mut list.ranges[..usize::from(count)] {
            *range = (reader.u32()?, reader.u32()?);
            if range.0 < least || range.1 <= range.0 {
                return Err(CodecError::Unknown { field: "range", value: u64::from(range.0) });
            }
            least = range.1.saturating_add(1);
        }
        Ok(list)
    }

    fn write(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        writer.u16(self.count)?;
        for (first, end) in &self.ranges[..usize::from(self.count)] {
            writer.u32(*first)?;
            writer.u32(*end)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u64 = CHUNK_BYTES as u64;

    fn list(ranges: &[(u64, u64)], size: u64) -> Vec<(u64, u64)> {
        ChunkRanges::of_bytes(ranges.iter().copied(), size).bytes(size).collect()
    }

    #[test]
    fn only_whole_chunks_count_and_the_last_one_may_be_short() {
        let size = 5 * CHUNK + 7;
        assert_eq!(list(&[(0, size)], size), [(0, size)]);
        assert_eq!(list(&[(0, CHUNK), (2 * CHUNK, 4 * CHUNK)], size), [(0, CHUNK), (2 * CHUNK, 4 * CHUNK)]);
        assert_eq!(list(&[(1, 2 * CHUNK + 5)], size), [(CHUNK, 2 * CHUNK)]);
        assert_eq!(list(&[(5, 7)], size), []);
        assert_eq!(list(&[(5 * CHUNK, size)], size), [(5 * CHUNK, size)]);
    }

    #[test]
    fn a_long_list_is_cut_and_a_list_out_of_order_is_refused() {
        let many = (0..2 * CHUNK_RANGES_MAX as u64).map(|index| (index * 2 * CHUNK, (index * 2 + 1) * CHUNK));
        let list = ChunkRanges::of_bytes(many, u64::MAX);
        let mut bytes = [0; super::super::CONTROL_PAYLOAD_MAX];
        let length = list.encode(&mut bytes).unwrap();
        assert_eq!(length, 2 + 8 * CHUNK_RANGES_MAX);
        assert_eq!(ChunkRanges::decode(&bytes[..length]), Ok(list));
        for wrong in [[(1, 1), (3, 4)], [(3, 4), (1, 2)], [(1, 3), (3, 4)], [(1, 3), (2, 4)]] {
            let mut bytes = vec![2, 0];
            wrong.iter().for_each(|&(first, end): &(u32, u32)| {
                bytes.extend(first.to_le_bytes());
                bytes.extend(end.to_le_bytes());
            });
            assert!(ChunkRanges::decode(&bytes).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_lies_beyond_the_object_is_left_out() {
        let list = ChunkRanges::of_bytes([(0, CHUNK), (3 * CHUNK, 4 * CHUNK)], 9 * CHUNK);
        assert_eq!(list.bytes(CHUNK + 1).collect::<Vec<_>>(), [(0, CHUNK)]);
        assert_eq!(list.bytes(3 * CHUNK + 1).last(), Some((3 * CHUNK, 3 * CHUNK + 1)));
    }
}
