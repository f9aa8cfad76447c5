//! Batches: transactions that travel and are ordered together. The bytes are kept as they came; transactions are seen
//! through them, so that none is allocated for. Made and held by the mempool, applied by the driver.
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::crypto::Certificate;
use crate::types::{Digest, ReplicaId, TransactionId, domain};
use crate::wire::{Reader, Wire, WireError, wire_struct};

/// Transactions of one author, whose bytes were checked.
///
/// ```text
/// author u16 | sequence u64 | count u32 | { client u64 | sequence u64 | length u32 | payload }*
/// ```
#[derive(Debug, Clone)]
pub struct Batch {
    name: BatchName,
    bytes: Arc<[u8]>,
}

wire_struct! {
    /// Which batch: its author's count, and what is in it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub struct BatchName list 1024 {
        /// Who made it.
        pub author: ReplicaId,
        /// Its author's count, from 1.
        pub sequence: u64,
        /// Of its bytes.
        pub digest: Digest,
    }
}

impl BatchName {
    /// Which of its author's batches, whatever is in it.
    pub(crate) fn place(&self) -> (ReplicaId, u64) {
        (self.author, self.sequence)
    }
}

wire_struct! {
    /// A batch that a quorum keeps: it can be ordered before its bytes are here.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct BatchRef list 256 {
        /// Which.
        pub name: BatchName,
        /// A quorum's promises to keep it.
        pub certificate: Certificate,
    }
}

/// Before the first transaction.
pub(crate) const HEAD_BYTES: usize = 2 + 8 + 4;
/// Of each transaction beside its payload.
pub(crate) const TRANSACTION_HEAD_BYTES: usize = 8 + 8 + 4;

impl Batch {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &BatchName {
        &self.name
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// Its transactions in order.
    pub fn transactions(&self) -> impl Iterator<Item = (TransactionId, &[u8])> {
        let mut input = Reader::new(&self.bytes[HEAD_BYTES..]);
        core::iter::from_fn(move || transaction(&mut input).ok())
    }

    /// Checks bytes through, and names them.
    pub(crate) fn parse(bytes: Arc<[u8]>) -> Result<Self, WireError> {
        let mut input = Reader::new(&bytes);
        let author = ReplicaId::read(&mut input)?;
        let sequence = u64::read(&mut input)?;
        let count = u32::read(&mut input)?;
        for _ in 0..count {
            transaction(&mut input)?;
        }
        if input.left() > 0 {
            return Err(WireError::Trailing);
        }
        if count == 0 || sequence == 0 {
            return Err(WireError::Invalid);
        }
        let name = BatchName { author, sequence, digest: Digest::of(domain::BATCH, &bytes) };
        Ok(Self { name, bytes })
    }
}

fn transaction<'a>(input: &mut Reader<'a>) -> Result<(TransactionId, &'a [u8]), WireError> {
    let id = TransactionId::read(input)?;
    let length = u32::read(input)? as usize;
    Ok((id, input.take(length)?))
}

impl Wire for Batch {
    fn write(&self, out: &mut Vec<u8>) {
        self.bytes.write(out);
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, WireError> {
        Self::parse(Wire::read(input)?)
    }
}

/// A batch being filled.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    transactions: Vec<u8>,
    count: u32,
}

impl Builder {
    pub(crate) fn push(&mut self, id: TransactionId, payload: &[u8]) {
        id.write(&mut self.transactions);
        (payload.len() as u32).write(&mut self.transactions);
        self.transactions.extend_from_slice(payload);
        self.count += 1;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the batch if it were closed now.
    pub(crate) fn len(&self) -> usize {
        HEAD_BYTES + self.transactions.len()
    }

    /// Closes the batch. There is a transaction in it.
    pub(crate) fn close(&mut self, author: ReplicaId, sequence: u64) -> Batch {
        let mut bytes = Vec::with_capacity(self.len());
        author.write(&mut bytes);
        sequence.write(&mut bytes);
        self.count.write(&mut bytes);
        bytes.extend_from_slice(&self.transactions);
        self.transactions.clear();
        self.count = 0;
        Batch::parse(bytes.into()).expect("an own batch is sound")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_comes_out() {
        let mut builder = Builder::default();
        let names = [1, 2].map(|sequence| TransactionId { client: 9, sequence });
        builder.push(names[0], b"one");
        builder.push(names[1], b"");
        let length = builder.len();
        let batch = builder.close(ReplicaId(3), 7);
        assert_eq!(batch.bytes().len(), length);
        assert_eq!(batch.name().place(), (ReplicaId(3), 7));
        let seen: Vec<_> = batch.transactions().collect();
        assert_eq!(seen, [(names[0], &b"one"[..]), (names[1], b"")]);
        assert!(builder.is_empty());
    }

    #[test]
    fn empty_and_torn_batches_are_refused() {
        let mut builder = Builder::default();
        builder.push(TransactionId { client: 1, sequence: 1 }, b"payload");
        let bytes = builder.close(ReplicaId(0), 1).bytes().to_vec();
        for end in 0..bytes.len() {
            assert!(Batch::parse(bytes[..end].into()).is_err(), "{end}");
        }
        let mut none = bytes[..HEAD_BYTES].to_vec();
        none[10..14].fill(0);
        assert_eq!(Batch::parse(none.into()).map(|_| ()), Err(WireError::Invalid));
    }
}
