//! The manager's side: hears its services and keeps their descriptors while they are started anew. For `dwcp server`.
#![expect(unsafe_code, reason = "descriptors are put to their numbers between fork and exec")]
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::inherited::FIRST;
use super::is_name;

/// Descriptors that are kept; more are closed.
pub const KEPT_MAX: usize = 256;

/// A socket at a path, and what came over it. The path goes when it is dropped.
#[derive(Debug)]
pub struct Store {
    socket: UnixDatagram,
    path: PathBuf,
    kept: Vec<(String, OwnedFd)>,
}

/// What a datagram came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// A descriptor is kept under this name.
    Kept(String),
    /// This name is not kept any more.
    Forgotten(String),
    /// A state, which is the caller's to read.
    State(String),
    /// More descriptors than [`KEPT_MAX`], or one without a usable name: closed.
    Refused,
}

impl Store {
    /// Listens at `path`, for this user alone; does not block.
    ///
    /// # Errors
    /// The system's.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let socket = UnixDatagram::bind(path)?;
        let store = Self { socket, path: path.to_owned(), kept: Vec::new() };
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
        store.socket.set_nonblocking(true)?;
        Ok(store)
    }

    /// What `$NOTIFY_SOCKET` is to be.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same socket once more, to wait for datagrams with.
    ///
    /// # Errors
    /// The system's.
    pub fn socket(&self) -> io::Result<UnixDatagram> {
        self.socket.try_clone()
    }

    /// Takes one datagram.
    ///
    /// # Errors
    /// `WouldBlock` when none waits; else the system's.
    pub fn receive(&mut self) -> io::Result<Told> {
        let mut bytes = [0; DATAGRAM_BYTES_MAX];
        let received = crate::fds::receive(self.socket.as_fd(), &mut bytes, DESCRIPTORS_PER_DATAGRAM);
        let (length, descriptors) = match received {
            Ok(received) => received,
            Err(crate::fds::FdsError::System(error)) => return Err(error),
            Err(_) => return Ok(Told::Refused),
        };
        let state = String::from_utf8_lossy(&bytes[..length]).into_owned();
        let value = |key: &str| state.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let name = value("FDNAME").unwrap_or_default();
        match (value("FDSTORE"), value("FDSTOREREMOVE"), descriptors.into_iter().next()) {
            (Some("1"), _, Some(descriptor)) => Ok(self.keep(name, descriptor)),
            (Some("1"), ..) => Ok(Told::Refused),
            (_, Some("1"), _) => {
                self.kept.retain(|(kept, _)| kept != name);
                Ok(Told::Forgotten(name.to_owned()))
            }
            _ => Ok(Told::State(state)),
        }
    }

    fn keep(&mut self, name: &str, descriptor: OwnedFd) -> Told {
        if !is_name(name) {
            return Told::Refused;
        }
        self.kept.retain(|(kept, _)| kept != name);
        if self.kept.len() >= KEPT_MAX {
            return Told::Refused;
        }
        self.kept.push((name.to_owned(), descriptor));
        Told::Kept(name.to_owned())
    }

    /// Gives the command what is kept, as sd_listen_fds(3) wants it but for `$LISTEN_PID`, which only the process itself
    /// knows before it becomes the service.
    pub fn hand_over(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", &self.path);
        if self.kept.is_empty() {
            return;
        }
        let names: Vec<&str> = self.kept.iter().map(|(name, _)| name.as_str()).collect();
        command.env("LISTEN_FDS", self.kept.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        let sources: Vec<RawFd> = self.kept.iter().map(|(_, descriptor)| descriptor.as_raw_fd()).collect();
        let mut aside = vec![0; sources.len()];
        // SAFETY: the closure calls nothing but `fcntl` and `dup2`, which are async-signal-safe (signal-safety(7)), and
        // writes to memory that it owns; it neither allocates nor takes a lock.
        unsafe { command.pre_exec(move || place(&sources, &mut aside)) };
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Somebody may have cleaned up before.
        drop(std::fs::remove_file(&self.path));
    }
}

/// Copies descriptors to the numbers from [`FIRST`] on. First all of them to numbers above, because one may lie where
/// another is to go. Copies made by `dup2` survive `execve`, all others do not.
fn place(sources: &[RawFd], aside: &mut [RawFd]) -> io::Result<()> {
    let above = FIRST + sources.len() as RawFd;
    for (source, copy) in sources.iter().zip(aside.iter_mut()) {
        // SAFETY: takes numbers; what they name is checked by the kernel.
        *copy = unsafe { libc::fcntl(*source, libc::F_DUPFD_CLOEXEC, above) };
        if *copy < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    for (copy, number) in aside.iter().zip(FIRST..) {
        // SAFETY: as above. In the child, nobody uses these numbers before `execve`.
        if unsafe { libc::dup2(*copy, number) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

const DATAGRAM_BYTES_MAX: usize = 4096;
const DESCRIPTORS_PER_DATAGRAM: usize = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Notifier;
    use std::net::TcpListener;
    use std::os::fd::BorrowedFd;

    #[test]
    fn descriptors_are_kept_by_name_and_handed_to_the_next_life() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::bind(&folder.path().join("notify")).unwrap();
        assert_eq!(store.receive().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let notifier = Notifier::at(store.path());
        let listeners: Vec<_> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        for (index, listener) in listeners.iter().enumerate() {
            notifier.keep(&format!("listen {index}"), listener.as_fd());
            assert_eq!(store.receive().unwrap(), Told::Kept(format!("listen {index}")));
        }
        notifier.forget("listen 1");
        assert_eq!(store.receive().unwrap(), Told::Forgotten("listen 1".into()));
        notifier.send("READY=1");
        assert_eq!(store.receive().unwrap(), Told::State("READY=1".into()));
        let mut command = Command::new("sh");
        command.args(["-c", "echo $LISTEN_FDS $LISTEN_FDNAMES; readlink /proc/self/fd/3 /proc/self/fd/4"]);
        store.hand_over(&mut command);
        let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let link = |listener: &TcpListener| {
            std::fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap()
        };
        let (first, last) = (link(&listeners[0]), link(&listeners[2]));
        assert_eq!(said, format!("2 listen 0:listen 2\n{}\n{}\n", first.display(), last.display()));
    }

    #[test]
    fn the_same_name_replaces_and_nonsense_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::bind(&folder.path().join("notify")).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.connect(store.path()).unwrap();
        let file = tempfile::tempfile().unwrap();
        let tell = |text: &str, files: &[BorrowedFd<'_>]| {
            crate::fds::send(sender.as_fd(), text.as_bytes(), files).unwrap();
        };
        for _ in 0..2 {
            tell("FDSTORE=1\nFDNAME=a", &[file.as_fd()]);
            assert_eq!(store.receive().unwrap(), Told::Kept("a".into()));
        }
        assert_eq!(store.kept.len(), 1);
        tell("FDSTORE=1\nFDNAME=b", &[]);
        tell("FDSTORE=1\nFDNAME=", &[file.as_fd()]);
        tell("FDSTORE=1\nFDNAME=c", &[file.as_fd(), file.as_fd()]);
        for _ in 0..3 {
            assert_eq!(store.receive().unwrap(), Told::Refused);
        }
        assert_eq!(store.kept.len(), 1);
    }
}
