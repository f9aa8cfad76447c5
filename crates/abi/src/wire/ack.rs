//! Acknowledgements: which tasks of this lane the receiver is done with.
use crate::codec::{CodecError, Encoded, Reader, Writer};

/// Most ranges in one acknowledgement; more go into the next.
pub const RANGES_MAX: usize = 32;

/// Tasks `start … start + count - 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SequenceRange {
    /// First task.
    pub start: u64,
    /// How many.
    pub count: u32,
}

/// Ranges of tasks that were received, checked, and written or unpacked, and the receiver's credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// Highest sequence that the sender may use on this lane, plus one.
    pub credit: u64,
    ranges: [SequenceRange; RANGES_MAX],
    count: usize,
}

impl Ack {
    /// An acknowledgement of nothing yet.
    #[must_use]
    pub fn new(credit: u64) -> Self {
        Self { credit, ranges: [SequenceRange::default(); RANGES_MAX], count: 0 }
    }

    /// Adds a task; false when there is no room for another range.
    pub fn add(&mut self, sequence: u64) -> bool {
        if let Some(range) =
            self.ranges[..self.count].iter_mut().find(|r| r.start + u64::from(r.count) == sequence)
        {
            range.count += 1;
            return true;
        }
        let Some(slot) = self.ranges.get_mut(self.count) else { return false };
        *slot = SequenceRange { start: sequence, count: 1 };
        self.count += 1;
        true
    }

    /// The ranges.
    #[must_use]
    pub fn ranges(&self) -> &[SequenceRange] {
        &self.ranges[..self.count]
    }
}

impl<'a> Encoded<'a> for Ack {
    fn read(reader: &mut Reader<'a>) -> Result<Self, CodecError> {
        let mut ack = Self::new(reader.u64()?);
        let count = usize::from(reader.u8()?);
        if count > RANGES_MAX {
            return Err(CodecError::TooLarge {
                field: "ranges",
                value: count as u64,
                max: RANGES_MAX as u64,
            });
        }
        for range in &mut ack.ranges[..count] {
            *range = SequenceRange { start: reader.u64()?, count: reader.u32()? };
        }
        ack.count = count;
        Ok(ack)
    }

    fn write(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        writer.u64(self.credit)?;
        writer.u8(self.count as u8)?;
        for range in self.ranges() {
            writer.u64(range.start)?;
            writer.u32(range.count)?;
        }
        Ok(())
    }
}
