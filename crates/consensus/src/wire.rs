//! The byte form of everything that leaves a replica: messages, records and what is signed. Fixed-width little
//! endian, one encoding per value, every length bounded before anything is allocated.
//!
//! Used by every module that defines a message. It knows no protocol.
use alloc::sync::Arc;
use alloc::vec::Vec;

/// A value with exactly one encoding.
pub trait Wire: Sized {
    /// Most elements in a list of these; a longer list does not decode. 0: there are no lists of them.
    const LIST_MAX: usize = 0;

    /// Appends the encoding.
    fn write(&self, out: &mut Vec<u8>);

    /// Takes one value off the input's front.
    ///
    /// # Errors
    /// [`WireError`] where the bytes are no encoding of a value.
    fn read(input: &mut Reader<'_>) -> Result<Self, WireError>;

    /// The encoding alone.
    fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// A value from exactly these bytes.
    ///
    /// # Errors
    /// [`WireError`] where the bytes are no encoding, or more than one.
    fn decoded(bytes: &[u8]) -> Result<Self, WireError> {
        let mut input = Reader { rest: bytes };
        let value = Self::read(&mut input)?;
        if input.rest.is_empty() { Ok(value) } else { Err(WireError::Trailing) }
    }
}

/// Why bytes are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireError {
    /// They end within a value.
    Short,
    /// There are more than the value needs.
    Trailing,
    /// A tag, a flag or an order that no encoder writes.
    Invalid,
    /// A list or a blob beyond its bound.
    TooLong,
}

/// What is left to decode.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the front of some bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`WireError::Short`] where there are fewer.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(WireError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next byte, which stays.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// How many bytes are left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.rest.len()
    }
}

/// Longest blob: a batch, a snapshot's part, a value of a record that nests another.
pub const BLOB_BYTES_MAX: usize = 1 << 20;

macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl Wire for $integer {
            const LIST_MAX: usize = 1024;

            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn read(input: &mut Reader<'_>) -> Result<Self, WireError> {
                let bytes = input.take(size_of::<Self>())?;
                Ok(Self::from_le_bytes(bytes.try_into().map_err(|_| WireError::Short)?))
            }
        }
    )*};
}
integers!(u8, u16, u32, u64);

impl Wire for bool {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, WireError> {
        match u8::read(input)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::Invalid),
        }
    }
}

impl<const N: usize> Wire for [u8; N] {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, WireError> {
        input.take(N)?.try_into().map_err(|_| WireError::Short)
    }
}

impl Wire for Arc<[u8]> {
    fn write(&self, out: &mut Vec<u8>) {
        (self.len() as u32).write(out);
        out.extend_from_slice(self);
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let length = u32::read(input)? as usize;
        if length > BLOB_BYTES_MAX {
            return Err(WireError::TooLong);
        }
        Ok(input.take(length)?.into())
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn write(&self, out: &mut Vec<u8>) {
        debug_assert!(self.len() <= T::LIST_MAX, "a list of {} is more than its decoder takes", self.len());
        (self.len() as u32).write(out);
        self.iter().for_each(|item| item.write(out));
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let count = u32::read(input)? as usize;
        // Each element takes a byte at least, so that a short message cannot ask for a large allocation.
        if count > T::LIST_MAX || count > input.left() {
            return Err(WireError::TooLong);
        }
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(T::read(input)?);
        }
        Ok(items)
    }
}

impl<T: Wire> Wire for Option<T> {
    fn write(&self, out: &mut Vec<u8>) {
        self.is_some().write(out);
        if let Some(value) = self {
            value.write(out);
        }
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(if bool::read(input)? { Some(T::read(input)?) } else { None })
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    const LIST_MAX: usize = A::LIST_MAX;

    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
        self.1.write(out);
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok((A::read(input)?, B::read(input)?))
    }
}

/// A structure whose encoding is its fields, one after the other.
macro_rules! wire_struct {
    ($(#[$meta:meta])* $vis:vis struct $name:ident $(list $max:literal)? {
        $($(#[$field_meta:meta])* $field_vis:vis $field:ident: $type:ty),* $(,)?
    }) => {
        $(#[$meta])*
        $vis struct $name {
            $($(#[$field_meta])* $field_vis $field: $type),*
        }

        impl $crate::wire::Wire for $name {
            $(const LIST_MAX: usize = $max;)?

            fn write(&self, out: &mut alloc::vec::Vec<u8>) {
                $($crate::wire::Wire::write(&self.$field, out);)*
            }

            fn read(
                input: &mut $crate::wire::Reader<'_>,
            ) -> Result<Self, $crate::wire::WireError> {
                Ok(Self { $($field: $crate::wire::Wire::read(input)?),* })
            }
        }
    };
}
pub(crate) use wire_struct;

/// An enumeration of structures: a tag, then the structure.
macro_rules! wire_enum {
    ($(#[$meta:meta])* $vis:vis enum $name:ident {
        $($(#[$variant_meta:meta])* $tag:literal => $variant:ident($type:ty)),* $(,)?
    }) => {
        $(#[$meta])*
        $vis enum $name {
            $($(#[$variant_meta])* $variant($type)),*
        }

        impl $crate::wire::Wire for $name {
            fn write(&self, out: &mut alloc::vec::Vec<u8>) {
                match self {
                    $(Self::$variant(value) => {
                        out.push($tag);
                        $crate::wire::Wire::write(value, out);
                    })*
                }
            }

            fn read(
                input: &mut $crate::wire::Reader<'_>,
            ) -> Result<Self, $crate::wire::WireError> {
                match <u8 as $crate::wire::Wire>::read(input)? {
                    $($tag => Ok(Self::$variant($crate::wire::Wire::read(input)?)),)*
                    _ => Err($crate::wire::WireError::Invalid),
                }
            }
        }
    };
}
pub(crate) use wire_enum;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_blobs_are_bounded_before_they_are_read() {
        let mut bytes = Vec::new();
        (u32::MAX).write(&mut bytes);
        assert_eq!(Vec::<u64>::decoded(&bytes), Err(WireError::TooLong));
        assert_eq!(Arc::<[u8]>::decoded(&bytes), Err(WireError::TooLong));
        let many = (1025_u32).encoded();
        assert_eq!(Vec::<u64>::decoded(&many), Err(WireError::TooLong));
    }

    #[test]
    fn only_one_encoding_is_taken() {
        assert_eq!(bool::decoded(&[2]), Err(WireError::Invalid));
        assert_eq!(bool::decoded(&[1, 0]), Err(WireError::Trailing));
        assert_eq!(u32::decoded(&[1, 0]), Err(WireError::Short));
        let value = (Some(7_u64), alloc::vec![1_u16, 2]);
        assert_eq!(<(Option<u64>, Vec<u16>)>::decoded(&value.encoded()), Ok(value));
    }
}
