//! What an entry tells beside its header, where its [`super::FLAG_EXTRA`] says so: a list of records, each a tag and what it
//! stands for, at most [`EXTRA_BYTES_MAX`] together. Most entries have none.
use crate::codec::{CodecError, Encoded, Reader, codes, messages, records};

messages! {
    /// One record.
    pub enum Extra<'a> {
        /// What is in a file, so that it is not sent where it is already.
        Digest(ContentDigest) = 1,
        /// An extended attribute.
        Attribute(Attribute<'a>) = 2,
        /// The owner's name at the sender.
        User(OwnerName<'a>) = 3,
        /// The group's.
        Group(OwnerName<'a>) = 4,
        /// What a special file stands for.
        Node(Node) = 5,
    }
}

codes! {
    /// The kind of a special file.
    pub enum NodeKind: u8 {
        /// A named pipe.
        Fifo = 1,
        /// The name of a socket.
        Socket = 2,
        /// A character device.
        Character = 3,
        /// A block device.
        Block = 4,
    }
}

records! {
    /// BLAKE3 of all bytes of a file, holes as zeros.
    pub struct ContentDigest {
        /// The digest.
        pub digest: [u8; 32],
    }

    /// An extended attribute; an access control list is one, too.
    pub struct Attribute<'a> {
        /// Such as `user.comment`; at most [`ATTRIBUTE_NAME_BYTES_MAX`] bytes.
        pub name: &'a [u8],
        /// Its value.
        pub value: &'a [u8],
    }

    /// A name in place of a number.
    pub struct OwnerName<'a> {
        /// At most [`OWNER_NAME_BYTES_MAX`] bytes.
        pub name: &'a [u8],
    }

    /// A special file.
    pub struct Node {
        /// Which kind.
        pub kind: NodeKind,
        /// Of a device: the driver.
        pub major: u32,
        /// Of a device: which of the driver's.
        pub minor: u32,
    }
}

/// Most bytes of an entry's records together: as many as one extended attribute may have (linux/limits.h,
/// `XATTR_SIZE_MAX`).
pub const EXTRA_BYTES_MAX: usize = 64 * 1024;

/// Longest name of an attribute (linux/limits.h, `XATTR_NAME_MAX`).
pub const ATTRIBUTE_NAME_BYTES_MAX: usize = 255;

/// Longest name of a user or a group: useradd(8) makes none that is longer.
pub const OWNER_NAME_BYTES_MAX: usize = 32;

/// Walks an entry's records; ends after the first error.
///
/// # Errors
/// Each item: any [`CodecError`] for a list that is damaged.
pub fn extras(list: &[u8]) -> impl Iterator<Item = Result<Extra<'_>, CodecError>> {
    let mut reader = Reader::new(list);
    core::iter::from_fn(move || {
        if reader.remaining() == 0 {
            return None;
        }
        let extra = Extra::read(&mut reader);
        if extra.is_err() {
            reader = Reader::new(&[]);
        }
        Some(extra)
    })
}
