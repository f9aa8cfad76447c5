//! How alike two strings of equal length are: the inner loops of the delta search, written so that they become vector
//! instructions without any being named.

/// Bytes that are equal at the same place.
#[inline]
pub(crate) fn equal_count(left: &[u8], right: &[u8]) -> usize {
    debug_assert_eq!(left.len(), right.len());
    let (left_chunks, left_rest) = left.as_chunks::<STRIDE>();
    let (right_chunks, right_rest) = right.as_chunks::<STRIDE>();
    let chunks: usize =
        left_chunks.iter().zip(right_chunks).map(|(left, right)| equal_in_stride(left, right)).sum();
    chunks + left_rest.iter().zip(right_rest).filter(|(left, right)| left == right).count()
}

/// [`equal_count`] of one stride.
#[inline]
pub(crate) fn equal_in_stride(left: &[u8; STRIDE], right: &[u8; STRIDE]) -> usize {
    let equal: u8 = left.iter().zip(right).map(|(left, right)| u8::from(left == right)).sum();
    usize::from(equal)
}

/// Equal bytes at the front.
#[inline]
pub(crate) fn equal_prefix(left: &[u8], right: &[u8]) -> usize {
    let length = left.len().min(right.len());
    let (left, right) = (&left[..length], &right[..length]);
    let (left_chunks, _) = left.as_chunks::<64>();
    let (right_chunks, _) = right.as_chunks::<64>();
    let same = left_chunks.iter().zip(right_chunks).take_while(|(left, right)| same_64(left, right)).count();
    let mut at = same * 64;
    while let (Some(left), Some(right)) = (left[at..].first_chunk(), right[at..].first_chunk()) {
        let different = u64::from_le_bytes(*left) ^ u64::from_le_bytes(*right);
        if different != 0 {
            return at + different.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + left[at..].iter().zip(&right[at..]).take_while(|(left, right)| left == right).count()
}

#[inline]
fn same_64(left: &[u8; 64], right: &[u8; 64]) -> bool {
    let different = left.iter().zip(right).fold(0, |different, (left, right)| different | (left ^ right));
    different == 0
}

/// Length of the prefix of both in which equal bytes outweigh different ones most (the forward extension of bsdiff,
/// Percival, "Naive differences of executable code", 2003), given up at `drop` below the best.
pub(crate) fn worthwhile_prefix(left: &[u8], right: &[u8], drop: i32) -> usize {
    let length = left.len().min(right.len());
    let mut worth = Worth::new(drop);
    let (left, left_rest) = left[..length].as_chunks::<8>();
    let (right, right_rest) = right[..length].as_chunks::<8>();
    for (left, right) in left.iter().zip(right) {
        let different = u64::from_le_bytes(*left) ^ u64::from_le_bytes(*right);
        if !worth.take(different) {
            return worth.best_length;
        }
    }
    worth.take_rest(left_rest.iter().zip(right_rest));
    worth.best_length
}

/// [`worthwhile_prefix`] of the reversed strings, which may have different lengths.
pub(crate) fn worthwhile_suffix(left: &[u8], right: &[u8], drop: i32) -> usize {
    let length = left.len().min(right.len());
    let mut worth = Worth::new(drop);
    let (left_rest, left) = left[left.len() - length..].as_rchunks::<8>();
    let (right_rest, right) = right[right.len() - length..].as_rchunks::<8>();
    for (left, right) in left.iter().rev().zip(right.iter().rev()) {
        let different = u64::from_be_bytes(*left) ^ u64::from_be_bytes(*right);
        if !worth.take(different) {
            return worth.best_length;
        }
    }
    worth.take_rest(left_rest.iter().rev().zip(right_rest.iter().rev()));
    worth.best_length
}

/// Equal bytes less different ones, and where that was most.
struct Worth {
    drop: i32,
    score: i32,
    best: i32,
    length: usize,
    best_length: usize,
}

impl Worth {
    const fn new(drop: i32) -> Self {
        Self { drop, score: 0, best: 0, length: 0, best_length: 0 }
    }

    /// Eight bytes, the first of them lowest. False where it is time to give up.
    #[inline]
    fn take(&mut self, different: u64) -> bool {
        if different == 0 {
            self.score += 8;
            self.length += 8;
            if self.score > self.best {
                (self.best, self.best_length) = (self.score, self.length);
            }
            return true;
        }
        for byte in different.to_le_bytes() {
            self.count(byte == 0);
        }
        self.score >= self.best - self.drop
    }

    fn take_rest<'a>(&mut self, rest: impl Iterator<Item = (&'a u8, &'a u8)>) {
        rest.for_each(|(left, right)| self.count(left == right));
    }

    #[inline]
    fn count(&mut self, equal: bool) {
        self.score += if equal { 1 } else { -1 };
        self.length += 1;
        if self.score > self.best {
            (self.best, self.best_length) = (self.score, self.length);
        }
    }
}

/// Where to change from one alignment to another: the place up to which `first` matched `target` better than `second`.
/// All three have one length.
pub(crate) fn best_split(target: &[u8], first: &[u8], second: &[u8]) -> usize {
    let (mut lead, mut best, mut split) = (0_i32, 0, 0);
    for (at, ((target, first), second)) in target.iter().zip(first).zip(second).enumerate() {
        lead += i32::from(target == first) - i32::from(target == second);
        if lead > best {
            (best, split) = (lead, at + 1);
        }
    }
    split
}

/// Bytes that are compared at once.
pub(crate) const STRIDE: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_prefixes_agree_with_the_obvious() {
        let left: Vec<u8> = (0..300_u32).map(|at| (at * 7 % 251) as u8).collect();
        for length in 0..=300 {
            assert_eq!(equal_count(&left[..length], &left[..length]), length);
            assert_eq!(equal_prefix(&left[..length], &left), length);
            for at in 0..length {
                let mut right = left[..length].to_vec();
                right[at] ^= 1;
                assert_eq!(equal_prefix(&left, &right), at);
                assert_eq!(equal_count(&left[..length], &right), length - 1);
            }
        }
    }

    #[test]
    fn extensions_bridge_a_few_differences_and_stop_at_many() {
        assert_eq!(worthwhile_prefix(b"abcdeXfghijk", b"abcdeYfghijk", 8), 12);
        assert_eq!(worthwhile_prefix(b"abcdeXXXXXXXXXXf", b"abcdeYYYYYYYYYYf", 8), 5);
        assert_eq!(worthwhile_suffix(b"...kjihgXfedcba", b"kjihgYfedcba", 8), 12);
        assert_eq!(worthwhile_prefix(b"", b"", 8), 0);
    }

    #[test]
    fn a_split_takes_each_side_where_it_is_better() {
        assert_eq!(best_split(b"aaaabbbb", b"aaaaaaaa", b"bbbbbbbb"), 4);
        assert_eq!(best_split(b"aaaa", b"bbbb", b"aaaa"), 0);
        assert_eq!(best_split(b"aaaa", b"aaaa", b"bbbb"), 4);
    }
}
