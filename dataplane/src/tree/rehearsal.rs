//! What would become of an entry, found out without touching anything.
use super::directories::{Directories, Making};
use super::existing::is_there;
use super::failure::Problem;
use super::links::is_same;
use super::name::split;
use super::options::Options;
use super::place::Target;
use super::special;
use dwcp_abi::wire::{Change, Code, Entry, EntryKind};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, readlinkat};
use nix::sys::stat::{FileStat, SFlag, fstatat};
use std::os::unix::ffi::OsStrExt;

/// The change that an entry would be; none where all is so already. The target is none where the destination is not there.
pub(super) fn rehearse(
    directories: &mut Directories,
    target: Option<&Target<'_>>,
    options: &Options,
    entry: &Entry<'_>,
) -> Result<Option<Change>, Problem> {
    let Some(target) = target else { return Ok(Some(Change::Created)) };
    if target.path.is_empty() {
        return Ok(None);
    }
    let (parent, leaf) = split(target.path);
    let parent = match directories.open(&target.root, parent, Making::Refuse) {
        Err(problem) if problem.code == Code::NotFound => return Ok(Some(Change::Created)),
        other => other?,
    };
    let stat = match fstatat(&*parent, leaf, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::ENOENT) => return Ok(Some(Change::Created)),
        other => other.map_err(|errno| Problem::system(errno, "look at what is there", entry.name))?,
    };
    let is_directory = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits();
    if is_directory != (entry.header.kind == EntryKind::Directory) {
        let errno = if is_directory { Errno::EISDIR } else { Errno::ENOTDIR };
        return Err(Problem::system(errno, "put it in place", entry.name));
    }
    let is_same = match entry.header.kind {
        EntryKind::Directory | EntryKind::DirectoryFinal | EntryKind::Failed => true,
        EntryKind::Symlink => {
            readlinkat(&*parent, leaf).is_ok_and(|target| target.as_bytes() == entry.content)
        }
        EntryKind::Special => special::node(entry.extra).is_some_and(|node| special::is_there(&stat, node)),
        EntryKind::HardLink => is_linked(directories, target, &stat, entry.content),
        EntryKind::InlineFile | EntryKind::Object => is_there(options, &*parent, leaf, entry).is_some(),
    };
    Ok((!is_same).then_some(Change::Replaced))
}

/// Whether what stands under a name is the file that it is to be another name of.
fn is_linked(directories: &mut Directories, target: &Target<'_>, stat: &FileStat, to: &[u8]) -> bool {
    let (parent, leaf) = split(to);
    let parent = directories.open(&target.root, parent, Making::Refuse);
    parent.is_ok_and(|parent| {
        fstatat(&*parent, leaf, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok_and(|found| is_same(&found, stat))
    })
}
