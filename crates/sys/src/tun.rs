//! TUN devices with offloads (Documentation/networking/tuntap.rst): IP packets of the network namespace in which the
//! device was made, each behind a `virtio_net_hdr` of [`Tun::HEADER_BYTES`] bytes. Used by the link emulator of tests
//! and benches; what is in a packet is not this file's business.
#![expect(unsafe_code, reason = "requests of the TUN driver that nix does not know")]
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use nix::errno::Errno;

/// Whether the kernel may hand over packets that it has not cut into segments or summed up yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Offload {
    /// Checksums and segmentation of TCP and UDP are left to the reader.
    #[default]
    On,
    /// Every packet arrives as it would look on a wire.
    Off,
}

/// One device, not blocking.
#[derive(Debug)]
pub struct Tun {
    file: File,
}

impl Tun {
    /// Length of the `virtio_net_hdr` before each packet, little endian.
    pub const HEADER_BYTES: usize = 10;

    /// Makes a device of this name in the network namespace of the calling thread. It vanishes with the value.
    ///
    /// # Errors
    /// The system's error: `NotFound` without `/dev/net/tun`, `PermissionDenied` without CAP_NET_ADMIN,
    /// `InvalidInput` for a name that the kernel does not take.
    pub fn open(name: &str, offload: Offload) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
        let tun = Self { file };
        let mut request = Request { name: [0; libc::IFNAMSIZ], flags: FLAGS, rest: [0; 22] };
        // The last byte stays zero.
        let places = request.name[..libc::IFNAMSIZ - 1].iter_mut();
        if name.is_empty() || name.len() >= libc::IFNAMSIZ {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        places.zip(name.bytes()).for_each(|(place, byte)| *place = byte);
        // SAFETY: TUNSETIFF reads and writes an `ifreq`, which `Request` is as large as; the call keeps no pointer.
        let made = unsafe { libc::ioctl(tun.file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        Errno::result(made)?;
        let little_endian: libc::c_int = 1;
        // SAFETY: TUNSETVNETLE reads an `int`; the call keeps no pointer.
        let set = unsafe { libc::ioctl(tun.file.as_raw_fd(), libc::TUNSETVNETLE, &raw const little_endian) };
        Errno::result(set)?;
        let offloads = match offload {
            Offload::On => libc::TUN_F_CSUM | TCP_SEGMENTS | UDP_SEGMENTS,
            Offload::Off => 0,
        };
        // Kernels before 6.2 do not know UDP segments.
        tun.set_offloads(offloads).or_else(|error| match error.raw_os_error() {
            Some(libc::EINVAL) => tun.set_offloads(offloads & !UDP_SEGMENTS),
            _ => Err(error),
        })?;
        Ok(tun)
    }

    fn set_offloads(&self, offloads: libc::c_uint) -> io::Result<()> {
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        let set =
            unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(offloads)) };
        Ok(Errno::result(set).map(drop)?)
    }

    /// Takes the next packet, header first; its length with the header.
    ///
    /// # Errors
    /// The system's error; `WouldBlock` where none waits.
    pub fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(into)
    }

    /// Puts one packet, given in parts of which the first begins with the header.
    ///
    /// # Errors
    /// The system's error; `InvalidInput` where header and packet disagree.
    pub fn send(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let sent = (&self.file).write_vectored(parts)?;
        // The driver takes a packet whole or not at all.
        if sent == parts.iter().map(|part| part.len()).sum::<usize>() {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// `struct ifreq`, with the flags of TUNSETIFF.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: u16,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());

const FLAGS: u16 = (libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as u16;
const TCP_SEGMENTS: libc::c_uint = libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
/// Since Linux 6.2.
const UDP_SEGMENTS: libc::c_uint = libc::TUN_F_USO4 | libc::TUN_F_USO6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        match Tun::open("a-name-that-is-too-long", Offload::On) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
            Err(error) => println!("skipped: no TUN device can be made here: {error}"),
            Ok(_) => panic!("a name of 23 bytes was taken"),
        }
    }
}
