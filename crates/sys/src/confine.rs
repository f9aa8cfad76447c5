//! Opening files below a directory that the path cannot leave: `openat2` (openat2(2), Linux 5.6). For every path that
//! comes from a peer or a request. Rights of the caller apply as always; which directories exist is not known here.
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;

/// What a symbolic link inside the path means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Followed as long as it stays below the directory.
    FollowBeneath,
    /// An error, in whatever component.
    Refuse,
}

/// Why a path was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConfineError {
    /// The path leaves the directory: absolute, by `..`, or by a link.
    #[error("path leaves its directory")]
    Escapes,
    /// The path goes through a link that may not be followed (or through too many).
    #[error("path goes through a symbolic link")]
    Link,
    /// The kernel or a filter around this process knows no `openat2`. Nothing weaker is tried.
    #[error("this kernel has no openat2 (Linux 5.6 has it): paths of peers cannot be confined")]
    Unsupported,
    /// The kernel says something else.
    #[error("{0}")]
    System(Errno),
}

/// Opens `path` relative to `directory`, close-on-exec. `mode` counts where `flags` create a file.
///
/// # Errors
/// Any [`ConfineError`].
pub fn open_beneath(
    directory: impl AsFd,
    path: &Path,
    flags: OFlag,
    mode: Mode,
    links: Links,
) -> Result<OwnedFd, ConfineError> {
    let resolve = match links {
        Links::FollowBeneath => BENEATH,
        Links::Refuse => BENEATH.union(ResolveFlag::RESOLVE_NO_SYMLINKS),
    };
    let how = OpenHow::new().flags(flags.union(OFlag::O_CLOEXEC)).mode(mode).resolve(resolve);
    let mut opened = Err(Errno::EAGAIN);
    for _ in 0..TRIES_MAX {
        opened = openat2(directory.as_fd(), path, how);
        // EAGAIN: something was renamed while `..` was resolved; EINTR: a slow file system.
        if !matches!(opened, Err(Errno::EAGAIN | Errno::EINTR)) {
            break;
        }
    }
    opened.map_err(|errno| match errno {
        Errno::EXDEV => ConfineError::Escapes,
        Errno::ELOOP => ConfineError::Link,
        Errno::ENOSYS => ConfineError::Unsupported,
        other => ConfineError::System(other),
    })
}

const BENEATH: ResolveFlag = ResolveFlag::RESOLVE_BENEATH.union(ResolveFlag::RESOLVE_NO_MAGICLINKS);

/// A peer that keeps renaming directories gets an error instead of our time.
const TRIES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;

    struct Export {
        outer: TempDir,
        directory: File,
    }

    /// outer/secret, and outer/export/{file, inner/file, links…}
    fn export() -> Export {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("export");
        fs::create_dir_all(root.join("inner")).unwrap();
        fs::write(outer.path().join("secret"), "secret").unwrap();
        fs::write(root.join("file"), "file").unwrap();
        fs::write(root.join("inner/file"), "inner").unwrap();
        symlink("../file", root.join("inner/beneath")).unwrap();
        symlink("../secret", root.join("out")).unwrap();
        symlink("/etc/passwd", root.join("absolute")).unwrap();
        symlink("..", root.join("up")).unwrap();
        symlink("inner", root.join("directory")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let directory = File::open(&root).unwrap();
        Export { outer, directory }
    }

    fn open(directory: &File, path: &str, links: Links) -> Result<String, ConfineError> {
        let opened = open_beneath(directory, Path::new(path), OFlag::O_RDONLY, Mode::empty(), links)?;
        Ok(std::io::read_to_string(File::from(opened)).unwrap())
    }

    #[test]
    fn files_below_open() {
        let export = export();
        for links in [Links::FollowBeneath, Links::Refuse] {
            assert_eq!(open(&export.directory, "file", links).unwrap(), "file");
            assert_eq!(open(&export.directory, "./inner/../inner/file", links).unwrap(), "inner");
        }
        assert_eq!(open(&export.directory, "inner/beneath", Links::FollowBeneath).unwrap(), "file");
        assert_eq!(open(&export.directory, "directory/file", Links::FollowBeneath).unwrap(), "inner");
    }

    #[test]
    fn nothing_outside_opens() {
        let export = export();
        let absolute = export.outer.path().join("export/file");
        for path in ["../secret", "inner/../../secret", "/etc/passwd", absolute.to_str().unwrap(), ".."] {
            for links in [Links::FollowBeneath, Links::Refuse] {
                assert_eq!(open(&export.directory, path, links), Err(ConfineError::Escapes), "{path}");
            }
        }
        for path in ["out", "absolute", "up/secret", "up"] {
            let escapes = Err(ConfineError::Escapes);
            assert_eq!(open(&export.directory, path, Links::FollowBeneath), escapes, "{path}");
            assert_eq!(open(&export.directory, path, Links::Refuse), Err(ConfineError::Link), "{path}");
        }
    }

    #[test]
    fn links_are_refused_where_asked_and_loops_always() {
        let export = export();
        for path in ["inner/beneath", "directory/file"] {
            assert_eq!(open(&export.directory, path, Links::Refuse), Err(ConfineError::Link), "{path}");
        }
        assert_eq!(open(&export.directory, "loop", Links::FollowBeneath), Err(ConfineError::Link));
    }

    #[test]
    fn magic_links_are_refused() {
        let proc = File::open("/proc").unwrap();
        for path in ["self/root", "self/exe", "self/fd/0", "self/cwd"] {
            assert_eq!(open(&proc, path, Links::FollowBeneath), Err(ConfineError::Link), "{path}");
        }
    }

    #[test]
    fn created_files_stay_below_and_get_their_mode() {
        use std::os::unix::fs::PermissionsExt;
        let export = export();
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let create = |path: &str| {
            let mode = Mode::S_IRUSR | Mode::S_IWUSR;
            open_beneath(&export.directory, Path::new(path), flags, mode, Links::Refuse)
        };
        let file = File::from(create("inner/new").unwrap());
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(create("inner/new").unwrap_err(), ConfineError::System(Errno::EEXIST));
        assert_eq!(create("../new").unwrap_err(), ConfineError::Escapes);
        assert_eq!(create("absent/new").unwrap_err(), ConfineError::System(Errno::ENOENT));
        assert!(!export.outer.path().join("new").exists());
    }
}
