//! Named pipes, sockets and devices at the receiver: made as nodes, never opened.
use super::directories::Directory;
use super::metadata::{self, Policy};
use dwcp_abi::wire::{EntryHeader, Extra, Node, NodeKind, extras};
use nix::errno::Errno;
use nix::sys::stat::{FileStat, SFlag, makedev, mknodat};

/// What an entry's records say that it is.
pub(super) fn node(extra: &[u8]) -> Option<Node> {
    extras(extra).map_while(Result::ok).find_map(|extra| match extra {
        Extra::Node(node) => Some(node),
        Extra::Digest(_) | Extra::Attribute(_) | Extra::User(_) | Extra::Group(_) => None,
    })
}

/// Whether it stands for a device.
pub(super) fn is_device(node: Node) -> bool {
    match node.kind {
        NodeKind::Fifo | NodeKind::Socket => false,
        NodeKind::Character | NodeKind::Block => true,
    }
}

/// Whether it is what stands under a name.
pub(super) fn is_there(stat: &FileStat, node: Node) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == kind(node).bits()
        && (!is_device(node) || stat.st_rdev == number(node))
}

/// Makes it for this user alone, then gives it its metadata.
pub(super) fn make(
    directory: &Directory,
    name: &[u8],
    node: Node,
    (policy, header): (Policy, &EntryHeader),
) -> Result<(), Errno> {
    let make = || mknodat(directory, name, kind(node), metadata::mode(0o600), number(node));
    match make() {
        Err(Errno::EEXIST) => {
            super::staged::remove(directory, name);
            make()
        }
        Err(Errno::EACCES) => metadata::open_up(directory).and_then(|()| make()),
        other => other,
    }?;
    policy.finish_named(directory, name, header)
}

fn kind(node: Node) -> SFlag {
    match node.kind {
        NodeKind::Fifo => SFlag::S_IFIFO,
        NodeKind::Socket => SFlag::S_IFSOCK,
        NodeKind::Character => SFlag::S_IFCHR,
        NodeKind::Block => SFlag::S_IFBLK,
    }
}

fn number(node: Node) -> u64 {
    if is_device(node) { makedev(node.major.into(), node.minor.into()) } else { 0 }
}
