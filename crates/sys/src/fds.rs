//! Descriptors over unix stream sockets (`SCM_RIGHTS`, unix(7)), and who is at the other end. Used by the attachment
//! of control to the dataplane ([`crate::link`]).
#![expect(
    unsafe_code,
    reason = "nix drops received descriptors on the floor when the control data is truncated"
)]
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessage, MsgFlags, UnixCredentials, getsockopt, sendmsg, sockopt};

/// Most descriptors of one message (SCM_MAX_FD, include/net/scm.h).
pub const DESCRIPTORS_MAX: usize = 253;

/// Why descriptors were not sent or received.
#[derive(Debug, thiserror::Error)]
pub enum FdsError {
    /// A system call failed.
    #[error("descriptors: {0}")]
    System(#[from] io::Error),
    /// More than one message holds, or than the receiver expects. All that came are closed.
    #[error("{count} descriptors where at most {max} are allowed")]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many may be.
        max: usize,
    },
    /// The kernel could not hand over all descriptors, for example because of RLIMIT_NOFILE. All that came are closed.
    #[error("descriptors were lost on the way: too many open files")]
    Truncated,
    /// Descriptors cannot travel without a byte.
    #[error("no bytes to send beside the descriptors")]
    Empty,
}

/// Sends `bytes` with `descriptors` beside the first of them; says how many bytes went.
///
/// # Errors
/// Any [`FdsError`]; nothing was sent.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<usize, FdsError> {
    if bytes.is_empty() {
        return Err(FdsError::Empty);
    }
    if descriptors.len() > DESCRIPTORS_MAX {
        return Err(FdsError::TooMany { count: descriptors.len(), max: DESCRIPTORS_MAX });
    }
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let data = [io::IoSlice::new(bytes)];
    let sent =
        retry(|| Ok(sendmsg::<()>(socket.as_raw_fd(), &data, control, MsgFlags::MSG_NOSIGNAL, None)?))?;
    Ok(sent)
}

/// Receives bytes, and the descriptors beside them, close-on-exec. Zero bytes = the other side closed.
///
/// # Errors
/// Any [`FdsError`]; where there are more than `descriptors_max`, all of them are closed.
pub fn receive(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    descriptors_max: usize,
) -> Result<(usize, Vec<OwnedFd>), FdsError> {
    let mut control = Control::new();
    let (received, flags) = retry(|| receive_raw(socket, bytes, &mut control))?;
    let descriptors = control.take_descriptors();
    if flags & libc::MSG_CTRUNC != 0 {
        return Err(FdsError::Truncated);
    }
    if descriptors.len() > descriptors_max {
        return Err(FdsError::TooMany { count: descriptors.len(), max: descriptors_max });
    }
    Ok((received, descriptors))
}

/// Process, user and group of the other end when it connected.
///
/// # Errors
/// The system's error.
pub fn peer_credentials(socket: BorrowedFd<'_>) -> io::Result<UnixCredentials> {
    Ok(getsockopt(&socket, sockopt::PeerCredentials)?)
}

fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

fn receive_raw(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    control: &mut Control,
) -> io::Result<(usize, libc::c_int)> {
    let mut data = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all zeroes is a valid `msghdr`.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut data;
    message.msg_iovlen = 1;
    message.msg_control = control.words.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control.words) as _;
    // SAFETY: `message` names `bytes` and `control`, both borrowed mutably for the call, with their true lengths.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    control.length_bytes = (message.msg_controllen as usize).min(size_of_val(&control.words));
    Ok((received, message.msg_flags))
}

/// Room for the control data of one message. Always large enough for all descriptors that one can carry, so that
/// none is lost for want of room.
struct Control {
    words: [u64; CONTROL_WORDS],
    length_bytes: usize,
}

impl Control {
    fn new() -> Self {
        Self { words: [0; CONTROL_WORDS], length_bytes: 0 }
    }

    /// Owns every descriptor that the kernel installed. The layout is cmsg(3)'s: a header of length, level and type,
    /// the data, padding to a word.
    fn take_descriptors(self) -> Vec<OwnedFd> {
        let bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut rest = &bytes[..self.length_bytes];
        let mut descriptors = Vec::new();
        while let Some((length, level, kind)) = header(rest) {
            let data = rest.get(HEADER_BYTES..length).unwrap_or_default();
            if level == libc::SOL_SOCKET && kind == libc::SCM_RIGHTS {
                for raw in data.as_chunks().0 {
                    // SAFETY: the kernel has just installed this descriptor for us and nobody else knows it.
                    descriptors.push(unsafe { OwnedFd::from_raw_fd(RawFd::from_ne_bytes(*raw)) });
                }
            }
            rest = rest.get(length.next_multiple_of(size_of::<usize>())..).unwrap_or_default();
        }
        descriptors
    }
}

/// Length with header, level and type of the first control message.
fn header(bytes: &[u8]) -> Option<(usize, i32, i32)> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (level, rest) = rest.split_first_chunk()?;
    let (kind, _) = rest.split_first_chunk()?;
    let length = usize::from_ne_bytes(*length);
    let plausible = (HEADER_BYTES..=bytes.len()).contains(&length);
    plausible.then(|| (length, i32::from_ne_bytes(*level), i32::from_ne_bytes(*kind)))
}

const HEADER_BYTES: usize = size_of::<libc::cmsghdr>();

const CONTROL_WORDS: usize = (HEADER_BYTES + DESCRIPTORS_MAX * size_of::<RawFd>()).div_ceil(8);

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn as_many_as_possible_arrive_in_order_and_close_on_exec() {
        let (left, right) = UnixStream::pair().unwrap();
        let files: Vec<_> = (0..DESCRIPTORS_MAX).map(|_| tempfile::tempfile().unwrap()).collect();
        for (index, file) in files.iter().enumerate() {
            file.set_len(index as u64).unwrap();
        }
        let sent: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        assert_eq!(send(left.as_fd(), b"hello", &sent).unwrap(), 5);
        let mut bytes = [0; 16];
        let (length, received) = receive(right.as_fd(), &mut bytes, DESCRIPTORS_MAX).unwrap();
        assert_eq!((&bytes[..length], received.len()), (&b"hello"[..], DESCRIPTORS_MAX));
        for (index, descriptor) in received.into_iter().enumerate() {
            let flags = FdFlag::from_bits_retain(fcntl(&descriptor, FcntlArg::F_GETFD).unwrap());
            assert!(flags.contains(FdFlag::FD_CLOEXEC));
            let file = std::fs::File::from(descriptor);
            assert_eq!(file.metadata().unwrap().len(), index as u64);
        }
    }

    #[test]
    fn descriptors_that_nobody_expects_are_closed() {
        let (left, right) = UnixStream::pair().unwrap();
        // The end of a pipe tells whether all copies of its writer are gone.
        let (reader, writer) = nix::unistd::pipe().unwrap();
        send(left.as_fd(), b"x", &[writer.as_fd(), writer.as_fd()]).unwrap();
        drop(writer);
        let refused = receive(right.as_fd(), &mut [0; 4], 1).unwrap_err();
        assert!(matches!(refused, FdsError::TooMany { count: 2, max: 1 }), "{refused}");
        assert_eq!(nix::unistd::read(&reader, &mut [0; 1]), Ok(0));
    }

    #[test]
    fn limits_of_the_sender_are_errors() {
        let (left, _right) = UnixStream::pair().unwrap();
        assert!(matches!(send(left.as_fd(), b"", &[]), Err(FdsError::Empty)));
        let many = vec![left.as_fd(); DESCRIPTORS_MAX + 1];
        assert!(matches!(send(left.as_fd(), b"x", &many), Err(FdsError::TooMany { count: 254, max: 253 })));
    }

    #[test]
    fn a_closed_end_is_zero_bytes_and_plain_bytes_need_no_descriptors() {
        let (left, right) = UnixStream::pair().unwrap();
        assert_eq!(send(left.as_fd(), b"plain", &[]).unwrap(), 5);
        drop(left);
        let mut bytes = [0; 8];
        assert_eq!(receive(right.as_fd(), &mut bytes, 0).unwrap().0, 5);
        assert_eq!(receive(right.as_fd(), &mut bytes, 0).unwrap().0, 0);
    }

    #[test]
    fn the_other_end_is_known() {
        let (left, _right) = UnixStream::pair().unwrap();
        let peer = peer_credentials(left.as_fd()).unwrap();
        assert_eq!(peer.pid(), i32::try_from(std::process::id()).unwrap());
        assert_eq!(peer.uid(), nix::unistd::getuid().as_raw());
    }
}
