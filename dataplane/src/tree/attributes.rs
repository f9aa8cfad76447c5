//! Extended attributes and access control lists: from a file to its entry's records, and from there to a file.
//!
//! Those of users only: `trusted.*` and `security.*` are never read, and never set whatever a peer sends, because programs
//! would trust them. Access control lists are attributes, too; the users and groups in them stay numbers.
use super::extra::ExtraList;
use super::failure::{Failures, Problem};
use super::name::Shown;
use dwcp_abi::codec::SHORT_BYTES_MAX;
use dwcp_abi::wire::{ATTRIBUTE_NAME_BYTES_MAX, Attribute, Code, Extra, TreeOptions, extras};
use dwcp_sys::attributes;
use nix::errno::Errno;
use std::cell::RefCell;
use std::ffi::{CStr, CString};
use std::os::fd::AsFd;

/// Which attributes are taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kinds {
    pub(super) users: bool,
    pub(super) lists: bool,
}

impl Kinds {
    /// What a job asks for.
    pub(super) fn of(tree: TreeOptions) -> Self {
        Self { users: tree.has(TreeOptions::XATTRS), lists: tree.has(TreeOptions::ACLS) }
    }

    /// Whether there are any.
    pub(super) fn any(self) -> bool {
        self.users || self.lists
    }

    fn has(self, name: &[u8]) -> bool {
        name.len() <= ATTRIBUTE_NAME_BYTES_MAX
            && (self.users && name.starts_with(b"user.") && name.len() > 5
                || self.lists && ACCESS_LISTS.contains(&name))
    }
}

/// Appends the attributes of a file to its records.
///
/// # Errors
/// They are too large, or cannot be read. None of them is in the list then.
pub(super) fn read(file: impl AsFd, kinds: Kinds, path: &[u8], list: &mut ExtraList) -> Result<(), Problem> {
    if !kinds.any() {
        return Ok(());
    }
    let start = list.len();
    let result = read_all(file, kinds, list);
    if result != Ok(()) {
        list.truncate(start);
    }
    match result {
        Ok(()) | Err(Errno::EOPNOTSUPP) => Ok(()),
        Err(Errno::ERANGE) => Err(Problem::new(Code::Io, path, TOO_LARGE)),
        Err(errno) => Err(Problem::system(errno, "read its extended attributes", path)),
    }
}

fn read_all(file: impl AsFd, kinds: Kinds, list: &mut ExtraList) -> Result<(), Errno> {
    let (mut names, mut room) = (vec![0; NAMES_BYTES_MAX], Vec::new());
    for name in names_of(attributes::list(&file, &mut names)?).filter(|name| kinds.has(name.to_bytes())) {
        room.resize(SHORT_BYTES_MAX, 0);
        let value = match attributes::value(&file, name, &mut room) {
            Err(Errno::ENODATA) => continue,
            other => other?,
        };
        if !list.push(&Extra::Attribute(Attribute { name: name.to_bytes(), value })) {
            return Err(Errno::ERANGE);
        }
    }
    Ok(())
}

/// Gives files the attributes of their entries, and notes where that did not work: the files themselves are there.
#[derive(Debug)]
pub(super) struct Attributes {
    kinds: Kinds,
    /// How many lack some, and the first of them in words.
    lacking: RefCell<(u64, String)>,
}

impl Attributes {
    /// Takes over attributes of these kinds.
    pub(super) fn new(kinds: Kinds) -> Self {
        Self { kinds, lacking: RefCell::default() }
    }

    /// Whether any are taken over: what a file has of itself may not be what it should have.
    pub(super) fn any(&self) -> bool {
        self.kinds.any()
    }

    /// Gives a file just those attributes that its entry has. Comes before its mode, which is part of an access list.
    pub(super) fn apply(&self, file: impl AsFd, extra: &[u8], path: &[u8]) {
        if !self.kinds.any() {
            return;
        }
        if let Err(errno) = apply_all(file, self.kinds, extra) {
            let mut lacking = self.lacking.borrow_mut();
            if lacking.0 == 0 {
                lacking.1 = format!("{}: {}", Shown(path), errno.desc());
            }
            lacking.0 += 1;
        }
    }

    /// Tells of all that lack some in one line.
    pub(super) fn tell(&self, failures: &mut Failures) {
        let lacking = self.lacking.borrow();
        if lacking.0 > 0 {
            let text = format!(
                "{} entries are there without some of their extended attributes; the first: {}",
                lacking.0, lacking.1
            );
            failures.push(Problem::new(Code::Io, b"destination", &text).of(b"", None));
        }
    }
}

fn apply_all(file: impl AsFd, kinds: Kinds, extra: &[u8]) -> Result<(), Errno> {
    let wanted = || {
        extras(extra).map_while(Result::ok).filter_map(move |extra| match extra {
            Extra::Attribute(attribute) if kinds.has(attribute.name) => Some(attribute),
            Extra::Attribute(_) | Extra::Digest(_) | Extra::User(_) | Extra::Group(_) | Extra::Node(_) => {
                None
            }
        })
    };
    let mut names = vec![0; NAMES_BYTES_MAX];
    match attributes::list(&file, &mut names) {
        Ok(listed) => {
            for name in names_of(listed).filter(|name| kinds.has(name.to_bytes())) {
                if !wanted().any(|attribute| attribute.name == name.to_bytes()) {
                    ignore_none(attributes::remove(&file, name))?;
                }
            }
        }
        Err(Errno::EOPNOTSUPP) if wanted().next().is_none() => return Ok(()),
        Err(errno) => return Err(errno),
    }
    for Attribute { name, value } in wanted() {
        // A name with a NUL in it is none.
        let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
        attributes::set(&file, &name, value)?;
    }
    Ok(())
}

fn ignore_none(removed: Result<(), Errno>) -> Result<(), Errno> {
    match removed {
        Err(Errno::ENODATA) => Ok(()),
        other => other,
    }
}

/// Names of a list, each with a NUL behind it.
fn names_of(list: &[u8]) -> impl Iterator<Item = &CStr> {
    list.split_inclusive(|byte| *byte == 0).filter_map(|name| CStr::from_bytes_with_nul(name).ok())
}

/// linux/posix_acl_xattr.h.
const ACCESS_LISTS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];
/// linux/limits.h, `XATTR_LIST_MAX`.
const NAMES_BYTES_MAX: usize = 64 * 1024;
const TOO_LARGE: &str = "its extended attributes are not sent: one is larger than 16 KiB, or they are larger than 64 KiB \
    together";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_programs_trust_are_never_taken_over() {
        let all = Kinds { users: true, lists: true };
        for name in
            ["security.capability", "security.selinux", "trusted.overlay.opaque", "system.other", "user.", ""]
        {
            assert!(!all.has(name.as_bytes()), "{name}");
        }
        assert!(all.has(b"user.a") && all.has(b"system.posix_acl_access"));
        assert!(!Kinds { users: false, lists: true }.has(b"user.a"));
        assert!(!Kinds { users: true, lists: false }.has(b"system.posix_acl_default"));
        assert!(!all.has(&[b"user.".as_slice(), &[b'x'; 255]].concat()));
    }
}
