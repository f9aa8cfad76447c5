//! Owners by name: the sender says what its numbers are called, the receiver looks the names up. Root is always 0.
use super::extra::ExtraList;
use dwcp_abi::wire::{Entry, EntryHeader, Extra, OWNER_NAME_BYTES_MAX, OwnerName, TreeOptions, extras};
use nix::sys::stat::FileStat;
use nix::unistd::{Gid, Group, Uid, User};
use std::collections::HashMap;
use std::hash::Hash;

/// What the numbers of a sender are called.
#[derive(Debug, Default)]
pub(super) struct OwnerNames {
    users: HashMap<u32, Option<Vec<u8>>>,
    groups: HashMap<u32, Option<Vec<u8>>>,
}

impl OwnerNames {
    /// Appends the names of a file's owners to its records, as far as the job wants them and there are any.
    pub(super) fn push(&mut self, stat: &FileStat, tree: TreeOptions, list: &mut ExtraList) {
        if tree.has(TreeOptions::NUMERIC_IDS) {
            return;
        }
        if tree.has(TreeOptions::OWNER)
            && stat.st_uid != 0
            && let Some(name) = remembered(&mut self.users, stat.st_uid, |uid| {
                User::from_uid(Uid::from_raw(*uid)).ok()?.map(|user| user.name.into_bytes())
            })
        {
            list.push(&Extra::User(OwnerName { name }));
        }
        if tree.has(TreeOptions::GROUP)
            && stat.st_gid != 0
            && let Some(name) = remembered(&mut self.groups, stat.st_gid, |gid| {
                Group::from_gid(Gid::from_raw(*gid)).ok()?.map(|group| group.name.into_bytes())
            })
        {
            list.push(&Extra::Group(OwnerName { name }));
        }
    }
}

/// Which numbers names have at a receiver.
#[derive(Debug, Default)]
pub(super) struct OwnerIds {
    users: HashMap<Vec<u8>, Option<u32>>,
    groups: HashMap<Vec<u8>, Option<u32>>,
}

impl OwnerIds {
    /// An entry's header with the numbers that its owners have here. A name that is not known here leaves the number.
    pub(super) fn header(&mut self, entry: &Entry<'_>) -> EntryHeader {
        let mut header = entry.header;
        for extra in extras(entry.extra).map_while(Result::ok) {
            match extra {
                Extra::User(OwnerName { name }) => {
                    let found = self.user(name);
                    header.uid = found.unwrap_or(header.uid);
                }
                Extra::Group(OwnerName { name }) => {
                    let found = self.group(name);
                    header.gid = found.unwrap_or(header.gid);
                }
                Extra::Digest(_) | Extra::Attribute(_) | Extra::Node(_) => {}
            }
        }
        header
    }

    fn user(&mut self, name: &[u8]) -> Option<u32> {
        remembered(&mut self.users, usable(name)?.as_bytes().to_vec(), |name| {
            Some(User::from_name(usable(name)?).ok()??.uid.as_raw())
        })
        .copied()
    }

    fn group(&mut self, name: &[u8]) -> Option<u32> {
        remembered(&mut self.groups, usable(name)?.as_bytes().to_vec(), |name| {
            Some(Group::from_name(usable(name)?).ok()??.gid.as_raw())
        })
        .copied()
    }
}

/// A name that may be asked for: a peer has written it.
fn usable(name: &[u8]) -> Option<&str> {
    let name = str::from_utf8(name).ok()?;
    let is_usable =
        (1..=OWNER_NAME_BYTES_MAX).contains(&name.len()) && !name.contains(['\0', ':', '/', '\n']);
    is_usable.then_some(name)
}

/// An answer of the system's databases, which may be far away, from memory where it was given before.
fn remembered<K: Hash + Eq, V>(
    known: &mut HashMap<K, Option<V>>,
    key: K,
    ask: impl FnOnce(&K) -> Option<V>,
) -> Option<&V> {
    if known.len() >= KNOWN_MAX && !known.contains_key(&key) {
        known.clear();
    }
    let answer = |key: &K| ask(key);
    known.entry(key).or_insert_with_key(answer).as_ref()
}

const KNOWN_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_peers_are_bounded_and_root_is_found() {
        let mut ids = OwnerIds::default();
        assert_eq!(ids.user(b"root"), Some(0));
        assert_eq!((ids.user(b"nobody-has-this-name"), ids.users.len()), (None, 2));
        for bad in [&b""[..], b"a:b", b"a/b", b"a\0b", b"\xff", &[b'x'; OWNER_NAME_BYTES_MAX + 1]] {
            assert_eq!(ids.user(bad), None);
        }
        assert_eq!(ids.users.len(), 2);
    }
}
