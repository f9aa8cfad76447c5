//! Entries of a tree, packed one after the other into the payload of a pack frame.
//!
//! ```text
//!  a pack:  ┌───────────────────────────────────┬───────┬───────┬───
//!           │ BLAKE3 of all that follows, 32 B  │ entry │ entry │ …
//!           └───────────────────────────────────┴───────┴───────┴───
//!  an entry:
//!  0      1       2              4      8      12     16         20         28     36       44
//!  ┌──────┬───────┬──────────────┬──────┬──────┬──────┬──────────┬──────────┬──────┬────────┬──────┬─────────┐
//!  │ kind │ flags │ name length  │ mode │ uid  │ gid  │ mtime ns │ mtime s  │ size │ object │ name │ content │
//!  └──────┴───────┴──────────────┴──────┴──────┴──────┴──────────┴──────────┴──────┴────────┴──────┴─────────┘
//!  Content is `size` bytes where the kind has content. Integers are little-endian. With `FLAG_EXTRA` there is more
//!  between name and content: a `u32` length of at most `EXTRA_BYTES_MAX`, and so many bytes of records.
//! ```
//! One digest covers the pack, made of what was read: for small files BLAKE3 is less than half as fast as for a
//! pack of them, and names and metadata are covered as well.
//!
//! The dataplane's scanner writes packs with [`PackWriter`], its receiver reads them with [`open_pack`] and
//! [`Pack`]. Names are checked here ([`check_name`]), so that nothing else ever sees one that could leave its
//! root. Digests are carried, not computed.
use super::EXTRA_BYTES_MAX;
use crate::codec::{CodecError, Encoded, Reader, Writer, codes, records};

codes! {
    /// What an entry is.
    pub enum EntryKind: u8 {
        /// A directory, to be made with at least `u+rwx`. The empty name stands for the destination itself.
        Directory = 1,
        /// A regular file, whole in the pack.
        InlineFile = 2,
        /// A regular file whose bytes follow in chunks.
        Object = 3,
        /// A symbolic link; its target is the content, and means nothing to the receiver.
        Symlink = 4,
        /// All inside a directory has been sent: its final mode and times.
        DirectoryFinal = 5,
        /// Another name of a regular file; the content is the first one, a path like every entry's.
        HardLink = 6,
        /// Could not be read by the sender; the content says why.
        Failed = 7,
        /// A named pipe, a socket or a device: a [`super::Node`] among its records says which.
        Special = 8,
    }
}

impl EntryKind {
    /// Whether `size` bytes of content stand behind the name.
    #[must_use]
    pub const fn has_content(self) -> bool {
        match self {
            Self::InlineFile | Self::Symlink | Self::HardLink | Self::Failed => true,
            Self::Directory | Self::Object | Self::DirectoryFinal | Self::Special => false,
        }
    }
}

records! {
    /// What stands in front of every entry.
    pub struct EntryHeader {
        /// What it is.
        pub kind: EntryKind,
        /// [`FLAG_SOLE`], [`FLAG_LEFT_OUT`], [`FLAG_EXTRA`].
        pub flags: u8,
        /// Bytes of the name, at most [`NAME_BYTES_MAX`].
        pub name_length: u16,
        /// Permission, set-id and sticky bits, as `st_mode & 0o7777`.
        pub mode: u32,
        /// Owner at the sender.
        pub uid: u32,
        /// Group at the sender.
        pub gid: u32,
        /// Nanoseconds of the time of the last change, below 10⁹.
        pub mtime_ns: u32,
        /// Seconds of it since 1970, negative before.
        pub mtime_s: i64,
        /// Bytes of the file, link target or text; 0 for directories.
        pub size: u64,
        /// Number of an object within its job, from 1; 0 for all other kinds.
        pub object: u64,
    }
}

/// The job consists of this one entry, which is not a directory: the destination may be its very name.
pub const FLAG_SOLE: u8 = 1;

/// Of [`EntryKind::Failed`]: nothing went wrong, what is there is of a kind that is not sent.
pub const FLAG_LEFT_OUT: u8 = 2;

/// There are records behind the name, as in [`super::extras`]. Of no failed entry.
pub const FLAG_EXTRA: u8 = 4;

/// Bytes of an [`EntryHeader`].
pub const ENTRY_HEADER_BYTES: usize = 44;

/// Bytes of the digest that a pack begins with.
pub const PACK_DIGEST_BYTES: usize = 32;

/// Longest relative path: `PATH_MAX` (limits.h) without its NUL.
pub const NAME_BYTES_MAX: usize = 4095;

/// Longest component of a path: `NAME_MAX` (limits.h).
pub const COMPONENT_BYTES_MAX: usize = 255;

/// Most components of a path.
pub const COMPONENTS_MAX: usize = 512;

/// Longest target of a symbolic link, and longest text of a failed entry.
pub const TEXT_BYTES_MAX: usize = 4095;

/// Largest file: offsets are signed (`off_t`).
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// One entry, borrowed from its pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The fixed fields.
    pub header: EntryHeader,
    /// Relative path below the destination; checked.
    pub name: &'a [u8],
    /// As in [`super::extras`]; empty without [`FLAG_EXTRA`].
    pub extra: &'a [u8],
    /// Content of an inline file, target of a link, text of a failure.
    pub content: &'a [u8],
}

impl<'a> Encoded<'a> for Entry<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, CodecError> {
        let header = EntryHeader::read(reader)?;
        let name = reader.bytes(usize::from(header.name_length))?;
        check(&header, name)?;
        let extra = if header.flags & FLAG_EXTRA == 0 { &[] } else { read_extra(reader)? };
        let length = if header.kind.has_content() { header.size } else { 0 };
        let length = usize::try_from(length).map_err(|_| CodecError::Truncated)?;
        let content = reader.bytes(length)?;
        if header.kind == EntryKind::Symlink && content.contains(&0) {
            return Err(CodecError::Unknown { field: "byte of a link target", value: 0 });
        }
        if header.kind == EntryKind::HardLink {
            check_name(content)?;
        }
        Ok(Self { header, name, extra, content })
    }

    fn write(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        check(&self.header, self.name)?;
        let wanted = if self.header.kind.has_content() { self.header.size } else { 0 };
        if self.content.len() as u64 != wanted || usize::from(self.header.name_length) != self.name.len() {
            return Err(CodecError::Unknown { field: "length of an entry", value: wanted });
        }
        self.header.write(writer)?;
        writer.bytes(self.name)?;
        write_extra(self.header, self.extra, writer)?;
        writer.bytes(self.content)
    }
}

/// Splits a pack into its digest and its entries, for [`Pack`]. No bytes at all are an empty pack too.
///
/// # Errors
/// [`CodecError::Truncated`].
pub fn open_pack(bytes: &[u8]) -> Result<(Option<&[u8; PACK_DIGEST_BYTES]>, &[u8]), CodecError> {
    if bytes.is_empty() {
        return Ok((None, bytes));
    }
    let (digest, entries) = bytes.split_first_chunk().ok_or(CodecError::Truncated)?;
    Ok((Some(digest), entries))
}

/// Reads entries in order; ends after the first error.
#[derive(Debug, Clone)]
pub struct Pack<'a> {
    reader: Reader<'a>,
}

impl<'a> Pack<'a> {
    /// Starts at the first entry of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { reader: Reader::new(bytes) }
    }
}

impl<'a> Iterator for Pack<'a> {
    type Item = Result<Entry<'a>, CodecError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.remaining() == 0 {
            return None;
        }
        let entry = Entry::read(&mut self.reader);
        if entry.is_err() {
            self.reader = Reader::new(&[]);
        }
        Some(entry)
    }
}

/// Writes entries one after the other.
#[derive(Debug)]
pub struct PackWriter<'a> {
    bytes: &'a mut [u8],
    at: usize,
    entries: u32,
}

impl<'a> PackWriter<'a> {
    /// Starts behind the digest at the front of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: PACK_DIGEST_BYTES, entries: 0 }
    }

    /// Puts the digest of all entries, as `digest` computes it, in front of them. The pack's bytes: 0 where there
    /// is no entry.
    pub fn seal(self, digest: impl FnOnce(&[u8]) -> [u8; PACK_DIGEST_BYTES]) -> usize {
        let written = self.bytes.get_mut(..self.at).filter(|_| self.entries > 0);
        let Some((front, entries)) = written.and_then(|bytes| bytes.split_first_chunk_mut()) else {
            return 0;
        };
        *front = digest(entries);
        self.at
    }

    /// Appends an entry; `header.name_length` and, for kinds with content, `header.size` are set from the slices.
    ///
    /// # Errors
    /// [`CodecError::NoRoom`] where it does not fit, any other for an entry that [`Pack`] would refuse. The pack
    /// stays as it was.
    pub fn append(&mut self, header: EntryHeader, name: &[u8], content: &[u8]) -> Result<(), CodecError> {
        self.append_with(header, (name, &[]), content)
    }

    /// As [`PackWriter::append`], with records behind the name where there are any.
    ///
    /// # Errors
    /// As [`PackWriter::append`].
    pub fn append_with(
        &mut self,
        header: EntryHeader,
        (name, extra): (&[u8], &[u8]),
        content: &[u8],
    ) -> Result<(), CodecError> {
        let header = with_lengths(header, (name, extra), content.len())?;
        let rest = self.bytes.get_mut(self.at..).ok_or(CodecError::NoRoom)?;
        self.at += Entry { header, name, extra, content }.encode(rest)?;
        self.entries += 1;
        Ok(())
    }

    /// Where the content of an entry with this name and these records would lie: content that is put there
    /// needs no copy. `None` where not even the name fits.
    #[must_use]
    pub fn content_room(&mut self, name: &[u8], extra: &[u8]) -> Option<&mut [u8]> {
        self.bytes.get_mut(self.at + ENTRY_HEADER_BYTES + name.len() + extra_bytes(extra)..)
    }

    /// Appends an entry whose content lies in [`PackWriter::content_room`] already.
    ///
    /// # Errors
    /// As [`PackWriter::append`].
    pub fn append_placed(
        &mut self,
        header: EntryHeader,
        (name, extra): (&[u8], &[u8]),
        length: usize,
    ) -> Result<(), CodecError> {
        let header = with_lengths(header, (name, extra), length)?;
        check(&header, name)?;
        let end = self.at + ENTRY_HEADER_BYTES + name.len() + extra_bytes(extra) + length;
        let place = self.bytes.get_mut(self.at..end).ok_or(CodecError::NoRoom)?;
        let mut writer = Writer::new(place);
        header.write(&mut writer)?;
        writer.bytes(name)?;
        write_extra(header, extra, &mut writer)?;
        self.at = end;
        self.entries += 1;
        Ok(())
    }

    /// Entries written.
    #[must_use]
    pub fn entries(&self) -> u32 {
        self.entries
    }
}

/// Demands a path that stays below its root: components of 1 to [`COMPONENT_BYTES_MAX`] bytes other than `.` and
/// `..`, joined by single slashes, no NUL. The empty name is refused too.
///
/// # Errors
/// [`CodecError::TooLarge`] or [`CodecError::Unknown`].
pub fn check_name(name: &[u8]) -> Result<(), CodecError> {
    let too_large = |field, value: usize, max: usize| CodecError::TooLarge {
        field,
        value: value as u64,
        max: max as u64,
    };
    if name.len() > NAME_BYTES_MAX {
        return Err(too_large("name", name.len(), NAME_BYTES_MAX));
    }
    let mut components = 0;
    for component in name.split(|byte| *byte == b'/') {
        components += 1;
        if component.is_empty() || component == b"." || component == b".." || component.contains(&0) {
            return Err(CodecError::Unknown { field: "component of a name", value: components as u64 });
        }
        if component.len() > COMPONENT_BYTES_MAX {
            return Err(too_large("component of a name", component.len(), COMPONENT_BYTES_MAX));
        }
    }
    if components > COMPONENTS_MAX {
        return Err(too_large("components of a name", components, COMPONENTS_MAX));
    }
    Ok(())
}

fn read_extra<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], CodecError> {
    let length = u64::from(reader.u32()?);
    let max = EXTRA_BYTES_MAX as u64;
    if length > max {
        return Err(CodecError::TooLarge { field: "records of an entry", value: length, max });
    }
    reader.bytes(length as usize)
}

fn write_extra(header: EntryHeader, extra: &[u8], writer: &mut Writer<'_>) -> Result<(), CodecError> {
    if header.flags & FLAG_EXTRA == 0 {
        return Ok(());
    }
    if extra.len() > EXTRA_BYTES_MAX {
        let (value, max) = (extra.len() as u64, EXTRA_BYTES_MAX as u64);
        return Err(CodecError::TooLarge { field: "records of an entry", value, max });
    }
    writer.u32(extra.len() as u32)?;
    writer.bytes(extra)
}

/// Bytes that records take in a pack, with the length in front of them.
fn extra_bytes(extra: &[u8]) -> usize {
    if extra.is_empty() { 0 } else { 4 + extra.len() }
}

fn with_lengths(
    header: EntryHeader,
    (name, extra): (&[u8], &[u8]),
    content: usize,
) -> Result<EntryHeader, CodecError> {
    let name_length = u16::try_from(name.len()).map_err(|_| CodecError::TooLarge {
        field: "name",
        value: name.len() as u64,
        max: NAME_BYTES_MAX as u64,
    })?;
    let size = if header.kind.has_content() { content as u64 } else { header.size };
    let flags = if extra.is_empty() { header.flags & !FLAG_EXTRA } else { header.flags | FLAG_EXTRA };
    Ok(EntryHeader { flags, name_length, size, ..header })
}

/// Everything about an entry that does not need its content.
fn check(header: &EntryHeader, name: &[u8]) -> Result<(), CodecError> {
    let sole = header.flags & FLAG_SOLE != 0;
    let known =
        if header.kind == EntryKind::Failed { FLAG_SOLE | FLAG_LEFT_OUT } else { FLAG_SOLE | FLAG_EXTRA };
    if header.flags & !known != 0 || (sole && name.contains(&b'/')) {
        return Err(CodecError::Unknown { field: "flags of an entry", value: u64::from(header.flags) });
    }
    if !(header.kind == EntryKind::Directory && name.is_empty()) {
        check_name(name)?;
    }
    if header.mtime_ns >= 1_000_000_000 {
        let value = u64::from(header.mtime_ns);
        return Err(CodecError::TooLarge { field: "nanoseconds of a time", value, max: 999_999_999 });
    }
    let size_max = match header.kind {
        EntryKind::Directory | EntryKind::DirectoryFinal | EntryKind::Special => 0,
        EntryKind::InlineFile | EntryKind::Object => FILE_BYTES_MAX,
        EntryKind::Symlink | EntryKind::HardLink | EntryKind::Failed => TEXT_BYTES_MAX as u64,
    };
    if header.size > size_max {
        return Err(CodecError::TooLarge { field: "size of an entry", value: header.size, max: size_max });
    }
    if (header.kind == EntryKind::Object) != (header.object != 0) {
        return Err(CodecError::Unknown { field: "object of an entry", value: header.object });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: EntryKind) -> EntryHeader {
        EntryHeader {
            kind,
            flags: 0,
            name_length: 0,
            mode: 0o644,
            uid: 1,
            gid: 2,
            mtime_ns: 999_999_999,
            mtime_s: -5,
            size: 0,
            object: u64::from(kind == EntryKind::Object),
        }
    }

    #[test]
    fn entries_come_back_as_they_were_written() {
        let mut bytes = [0; 1024];
        let mut writer = PackWriter::new(&mut bytes);
        writer.append(header(EntryKind::Directory), b"", b"").unwrap();
        writer.append(header(EntryKind::Directory), b"a", b"").unwrap();
        let (name, extra) = (&b"a/\xff"[..], &b"more"[..]);
        writer.content_room(name, extra).unwrap()[..5].copy_from_slice(b"hello");
        writer.append_placed(header(EntryKind::InlineFile), (name, extra), 5).unwrap();
        let object = EntryHeader { size: 1 << 40, ..header(EntryKind::Object) };
        writer.append(object, b"a/large", b"").unwrap();
        writer.append(header(EntryKind::Symlink), b"a/link", b"../../etc").unwrap();
        assert_eq!(writer.entries(), 5);
        let length = writer.seal(|entries| [entries.len() as u8; 32]);

        let (digest, entries) = open_pack(&bytes[..length]).unwrap();
        assert_eq!(digest, Some(&[(length - PACK_DIGEST_BYTES) as u8; 32]));
        let entries: Vec<_> = Pack::new(entries).collect::<Result<_, _>>().unwrap();
        assert_eq!(entries.len(), 5);
        assert_eq!((entries[2].name, entries[2].extra, entries[2].content), (name, extra, &b"hello"[..]));
        assert_eq!(
            entries[2].header,
            EntryHeader { flags: FLAG_EXTRA, name_length: 3, size: 5, ..header(EntryKind::InlineFile) }
        );
        assert_eq!((entries[3].header.size, entries[3].content), (1 << 40, &b""[..]));
        assert_eq!(entries[4].content, b"../../etc");
    }

    #[test]
    fn the_header_has_the_length_that_the_drawing_says() {
        let mut bytes = [0; 256];
        assert_eq!(header(EntryKind::Object).encode(&mut bytes).unwrap(), ENTRY_HEADER_BYTES);
        assert_eq!(bytes[0], 3);
        assert_eq!(bytes[20..28], (-5i64).to_le_bytes());
        assert_eq!(bytes[36..44], 1u64.to_le_bytes());
    }

    #[test]
    fn names_that_leave_their_root_are_refused() {
        let long = [b'x'; 256];
        let deep = b"x/".repeat(COMPONENTS_MAX + 1);
        let bad: [&[u8]; 13] = [
            b"",
            b"/",
            b"/a",
            b"a/",
            b"a//b",
            b".",
            b"..",
            b"a/..",
            b"../a",
            b"a/./b",
            b"a\0",
            &long,
            &deep[..deep.len() - 1],
        ];
        for name in bad {
            assert!(check_name(name).is_err(), "{name:?}");
            let mut bytes = [0; 2048];
            let writer = &mut PackWriter::new(&mut bytes);
            assert!(writer.append(header(EntryKind::InlineFile), name, b"x").is_err());
            assert_eq!(writer.entries(), 0);
        }
        for name in [&b"a"[..], b"...", b".a", b"a/b", b"a/..b", b"\xff\xfe", &[b'x'; 255]] {
            assert!(check_name(name).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn a_decoder_meets_hostile_fields_with_an_error() {
        let whole = |header: EntryHeader, name: &[u8], content: &[u8]| {
            let mut bytes = [0; 512];
            let flags = header.flags;
            let header = with_lengths(header, (name, &[]), content.len()).unwrap();
            let header = EntryHeader { flags, ..header };
            let mut writer = Writer::new(&mut bytes);
            header.write(&mut writer).unwrap();
            writer.bytes(name).unwrap();
            writer.bytes(content).unwrap();
            let length = writer.written();
            Pack::new(&bytes[..length]).next().unwrap().map(|entry| entry.header.kind)
        };
        assert!(whole(header(EntryKind::Object), b"a", b"").is_ok());
        assert!(whole(EntryHeader { size: u64::MAX, ..header(EntryKind::Object) }, b"a", b"").is_err());
        assert!(whole(EntryHeader { object: 0, ..header(EntryKind::Object) }, b"a", b"").is_err());
        assert!(whole(EntryHeader { object: 1, ..header(EntryKind::InlineFile) }, b"a", b"").is_err());
        assert!(whole(EntryHeader { flags: 2, ..header(EntryKind::InlineFile) }, b"a", b"").is_err());
        assert!(whole(EntryHeader { flags: 1, ..header(EntryKind::InlineFile) }, b"a/b", b"").is_err());
        assert!(whole(EntryHeader { mtime_ns: 1 << 30, ..header(EntryKind::Symlink) }, b"a", b"b").is_err());
        assert!(whole(header(EntryKind::Symlink), b"a", b"b\0c").is_err());
        assert!(whole(header(EntryKind::DirectoryFinal), b"", b"").is_err());
        assert!(whole(header(EntryKind::HardLink), b"a", b"b/c").is_ok());
        for target in [&b"../b"[..], b"/b", b"b/", b""] {
            assert!(whole(header(EntryKind::HardLink), b"a", target).is_err());
        }
        assert!(whole(EntryHeader { flags: FLAG_EXTRA, ..header(EntryKind::Failed) }, b"a", b"").is_err());
        // Records whose length is a lie.
        assert!(
            whole(EntryHeader { flags: FLAG_EXTRA, ..header(EntryKind::InlineFile) }, b"a", b"").is_err()
        );
    }

    #[test]
    fn mutated_packs_never_panic_and_never_yield_a_bad_name() {
        let mut bytes = [0; 1024];
        let mut writer = PackWriter::new(&mut bytes);
        for name in [&b"a"[..], b"a/b", b"a/b/c"] {
            writer.append(header(EntryKind::InlineFile), name, b"content").unwrap();
            writer.append(header(EntryKind::Symlink), name, b"target").unwrap();
        }
        let length = writer.seal(|_| [0; 32]);
        let mut state = 1u64;
        for _ in 0..20_000 {
            let mut mutated = bytes;
            for _ in 0..4 {
                // The multiplier is Knuth's for 64-bit linear congruential generators (MMIX).
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                mutated[(state >> 33) as usize % length] = (state >> 56) as u8;
            }
            let end = (state >> 20) as usize % (length + 1);
            let Ok((_, entries)) = open_pack(&mutated[..end]) else { continue };
            for entry in Pack::new(entries).take(1000).flatten() {
                assert!(entry.header.kind == EntryKind::Directory || check_name(entry.name).is_ok());
            }
        }
    }
}
