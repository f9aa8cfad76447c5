//! Little-endian reader and writer over borrowed bytes. Every message of [`crate::wire`] and [`crate::link`] is
//! written with these two; neither allocates, neither panics.

/// Why bytes could not be read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodecError {
    /// The bytes end before the value does.
    Truncated,
    /// Bytes remain after the last field.
    Trailing,
    /// The value does not fit in the buffer that was given.
    NoRoom,
    /// A tag, flag or enumeration has no meaning in this version.
    Unknown {
        /// The field's name.
        field: &'static str,
        /// What was found.
        value: u64,
    },
    /// A length or count lies above its limit.
    TooLarge {
        /// The field's name.
        field: &'static str,
        /// What was found.
        value: u64,
        /// The largest that is allowed.
        max: u64,
    },
    /// A checksum does not fit its bytes.
    Checksum {
        /// What the checksum covers.
        what: &'static str,
    },
}

impl core::fmt::Display for CodecError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Truncated => write!(f, "message ends too early"),
            Self::Trailing => write!(f, "message has bytes after its last field"),
            Self::NoRoom => write!(f, "message does not fit its buffer"),
            Self::Unknown { field, value } => write!(f, "{field} has the unknown value {value}"),
            Self::TooLarge { field, value, max } => write!(f, "{field} is {value}, above the limit of {max}"),
            Self::Checksum { what } => write!(f, "checksum of {what} does not match"),
        }
    }
}

impl core::error::Error for CodecError {}

/// Reads fields from the front of a slice.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

macro_rules! read_integer {
    ($($name:ident: $type:ty),*) => {$(
        #[doc = concat!("Next little-endian `", stringify!($type), "`.")]
        ///
        /// # Errors
        /// [`CodecError::Truncated`] at the end of the bytes.
        #[inline]
        pub fn $name(&mut self) -> Result<$type, CodecError> {
            let (head, rest) = self.rest.split_first_chunk().ok_or(CodecError::Truncated)?;
            self.rest = rest;
            Ok(<$type>::from_le_bytes(*head))
        }
    )*};
}

impl<'a> Reader<'a> {
    /// Starts at the first of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    read_integer!(u8: u8, u16: u16, u32: u32, u64: u64, i64: i64);

    /// Next `length` bytes.
    ///
    /// # Errors
    /// [`CodecError::Truncated`] where fewer remain.
    pub fn bytes(&mut self, length: usize) -> Result<&'a [u8], CodecError> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or(CodecError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// Next `N` bytes as an array.
    ///
    /// # Errors
    /// [`CodecError::Truncated`] where fewer remain.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(CodecError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    /// Bytes behind a `u16` length of at most `max`.
    ///
    /// # Errors
    /// [`CodecError::TooLarge`] above `max`, [`CodecError::Truncated`] where fewer remain.
    pub fn short_bytes(&mut self, field: &'static str, max: usize) -> Result<&'a [u8], CodecError> {
        let length = usize::from(self.u16()?);
        if length > max {
            return Err(CodecError::TooLarge { field, value: length as u64, max: max as u64 });
        }
        self.bytes(length)
    }

    /// All that remains.
    #[must_use]
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Number of bytes that remain.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Demands that nothing remains.
    ///
    /// # Errors
    /// [`CodecError::Trailing`] where something does.
    pub fn finish(self) -> Result<(), CodecError> {
        if self.rest.is_empty() { Ok(()) } else { Err(CodecError::Trailing) }
    }
}

/// Writes fields to the front of a slice.
#[derive(Debug)]
pub struct Writer<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

macro_rules! write_integer {
    ($($name:ident: $type:ty),*) => {$(
        #[doc = concat!("Appends a little-endian `", stringify!($type), "`.")]
        ///
        /// # Errors
        /// [`CodecError::NoRoom`] where the slice is full.
        #[inline]
        pub fn $name(&mut self, value: $type) -> Result<(), CodecError> {
            self.bytes(&value.to_le_bytes())
        }
    )*};
}

impl<'a> Writer<'a> {
    /// Starts at the first of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    write_integer!(u8: u8, u16: u16, u32: u32, u64: u64, i64: i64);

    /// Appends bytes as they are.
    ///
    /// # Errors
    /// [`CodecError::NoRoom`] where they do not fit.
    pub fn bytes(&mut self, value: &[u8]) -> Result<(), CodecError> {
        let end = self.at.checked_add(value.len()).ok_or(CodecError::NoRoom)?;
        let room = self.bytes.get_mut(self.at..end).ok_or(CodecError::NoRoom)?;
        room.copy_from_slice(value);
        self.at = end;
        Ok(())
    }

    /// Appends a `u16` length and the bytes.
    ///
    /// # Errors
    /// [`CodecError::TooLarge`] above `max`, [`CodecError::NoRoom`] where they do not fit.
    pub fn short_bytes(&mut self, field: &'static str, value: &[u8], max: usize) -> Result<(), CodecError> {
        let too_large = CodecError::TooLarge { field, value: value.len() as u64, max: max as u64 };
        let length = u16::try_from(value.len()).map_err(|_| too_large)?;
        if value.len() > max {
            return Err(too_large);
        }
        self.u16(length)?;
        self.bytes(value)
    }

    /// Number of bytes written.
    #[must_use]
    pub fn written(&self) -> usize {
        self.at
    }
}

/// A value with one fixed form in bytes.
pub trait Encoded<'a>: Sized {
    /// Reads the value from the front of `reader`.
    ///
    /// # Errors
    /// Any [`CodecError`]; the reader's position is then unspecified.
    fn read(reader: &mut Reader<'a>) -> Result<Self, CodecError>;

    /// Appends the value to `writer`.
    ///
    /// # Errors
    /// [`CodecError::NoRoom`] or [`CodecError::TooLarge`].
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), CodecError>;

    /// Reads a value that must fill `bytes`.
    ///
    /// # Errors
    /// Any [`CodecError`].
    fn decode(bytes: &'a [u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        let value = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(value)
    }

    /// Writes the value to the front of `bytes` and says how many it took.
    ///
    /// # Errors
    /// As [`Encoded::write`].
    fn encode(&self, bytes: &mut [u8]) -> Result<usize, CodecError> {
        let mut writer = Writer::new(bytes);
        self.write(&mut writer)?;
        Ok(writer.written())
    }
}

macro_rules! encoded_integer {
    ($($type:ident),*) => {$(
        impl<'a> Encoded<'a> for $type {
            #[inline]
            fn read(reader: &mut Reader<'a>) -> Result<Self, CodecError> {
                reader.$type()
            }
            #[inline]
            fn write(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
                writer.$type(*self)
            }
        }
    )*};
}
encoded_integer!(u8, u16, u32, u64, i64);

impl<'a> Encoded<'a> for bool {
    fn read(reader: &mut Reader<'a>) -> Result<Self, CodecError> {
        match reader.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(CodecError::Unknown { field: "boolean", value: u64::from(other) }),
        }
    }
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        writer.u8(u8::from(*self))
    }
}

impl<'a, const N: usize> Encoded<'a> for [u8; N] {
    fn read(reader: &mut Reader<'a>) -> Result<Self, CodecError> {
        reader.array()
    }
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        writer.bytes(self)
    }
}

/// Bytes behind a `u16` length, at most [`SHORT_BYTES_MAX`].
impl<'a> Encoded<'a> for &'a [u8] {
    fn read(reader: &mut Reader<'a>) -> Result<Self, CodecError> {
        reader.short_bytes("length", SHORT_BYTES_MAX)
    }
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        writer.short_bytes("length", self, SHORT_BYTES_MAX)
    }
}

/// Longest byte string of a message: several paths of `PATH_MAX` (limits.h).
pub const SHORT_BYTES_MAX: usize = 16 * 1024;

/// Declares structs whose bytes are their fields in order.
macro_rules! records {
    ($($(#[$meta:meta])* pub struct $name:ident $(<$life:lifetime>)? {
        $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)*
    })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name $(<$life>)? {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        $crate::codec::records!(@impl $name $(<$life>)? { $($field: $type,)* });
    )*};
    (@impl $name:ident <$life:lifetime> { $($field:ident: $type:ty,)* }) => {
        impl<$life> $crate::codec::Encoded<$life> for $name<$life> {
            fn read(reader: &mut $crate::codec::Reader<$life>) -> Result<Self, $crate::codec::CodecError> {
                Ok(Self { $($field: $crate::codec::Encoded::read(reader)?,)* })
            }
            fn write(&self, writer: &mut $crate::codec::Writer<'_>) -> Result<(), $crate::codec::CodecError> {
                $($crate::codec::Encoded::write(&self.$field, writer)?;)*
                Ok(())
            }
        }
    };
    (@impl $name:ident { $($field:ident: $type:ty,)* }) => {
        impl<'a> $crate::codec::Encoded<'a> for $name {
            fn read(reader: &mut $crate::codec::Reader<'a>) -> Result<Self, $crate::codec::CodecError> {
                Ok(Self { $($field: $crate::codec::Encoded::read(reader)?,)* })
            }
            fn write(&self, writer: &mut $crate::codec::Writer<'_>) -> Result<(), $crate::codec::CodecError> {
                $($crate::codec::Encoded::write(&self.$field, writer)?;)*
                Ok(())
            }
        }
    };
}

/// Declares enumerations that travel as one integer.
macro_rules! codes {
    ($($(#[$meta:meta])* pub enum $name:ident: $integer:ident { $($(#[$variant_meta:meta])* $variant:ident = $value:literal,)* })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr($integer)]
        pub enum $name {
            $($(#[$variant_meta])* $variant = $value,)*
        }

        impl $name {
            /// Every value, in order of its code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
        }

        impl<'a> $crate::codec::Encoded<'a> for $name {
            fn read(reader: &mut $crate::codec::Reader<'a>) -> Result<Self, $crate::codec::CodecError> {
                match reader.$integer()? {
                    $($value => Ok(Self::$variant),)*
                    other => Err($crate::codec::CodecError::Unknown { field: stringify!($name), value: u64::from(other) }),
                }
            }
            fn write(&self, writer: &mut $crate::codec::Writer<'_>) -> Result<(), $crate::codec::CodecError> {
                writer.$integer(*self as $integer)
            }
        }
    )*};
}

/// Declares a message: one tag byte, then the fields of the struct that the tag stands for.
macro_rules! messages {
    ($(#[$meta:meta])* pub enum $name:ident<$life:lifetime> { $($(#[$variant_meta:meta])* $variant:ident($type:ty) = $tag:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name<$life> {
            $($(#[$variant_meta])* $variant($type),)*
        }

        impl<$life> $crate::codec::Encoded<$life> for $name<$life> {
            fn read(reader: &mut $crate::codec::Reader<$life>) -> Result<Self, $crate::codec::CodecError> {
                match reader.u8()? {
                    $($tag => Ok(Self::$variant($crate::codec::Encoded::read(reader)?)),)*
                    other => Err($crate::codec::CodecError::Unknown { field: stringify!($name), value: u64::from(other) }),
                }
            }
            fn write(&self, writer: &mut $crate::codec::Writer<'_>) -> Result<(), $crate::codec::CodecError> {
                match self {
                    $(Self::$variant(value) => {
                        writer.u8($tag)?;
                        $crate::codec::Encoded::write(value, writer)
                    })*
                }
            }
        }
    };
}

pub(crate) use {codes, messages, records};
