//! Queueing disciplines of this network namespace, asked over rtnetlink (rtnetlink(7), RTM_GETQDISC). The dataplane
//! wants to know which interfaces keep departure times.
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// One queueing discipline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discipline {
    /// Index of the interface.
    pub interface: u32,
    /// Its own handle.
    pub handle: u32,
    /// Handle of the class or discipline above it; [`ROOT`] for the interface's own.
    pub parent: u32,
    /// Such as `fq` or `mq`.
    pub kind: String,
}

/// Every discipline that the kernel tells of; interfaces without queue (`noqueue`) have none or one of that kind.
///
/// # Errors
/// What the system says; [`io::ErrorKind::InvalidData`] for an answer that contradicts itself.
pub fn disciplines() -> io::Result<Vec<Discipline>> {
    let socket =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    send(socket.as_raw_fd(), &request(), MsgFlags::empty())?;
    let mut found = Vec::new();
    let mut buffer = vec![0; ANSWER_BYTES_MAX];
    for _ in 0..ANSWERS_MAX {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if take(&buffer[..length], &mut found)? {
            break;
        }
    }
    Ok(found)
}

/// Interfaces whose every packet goes through `fq`: as their own discipline, or as each queue's below `mq`.
#[must_use]
pub fn with_fq(disciplines: &[Discipline]) -> BTreeSet<u32> {
    let mut leaves: BTreeMap<u32, bool> = BTreeMap::new();
    for one in disciplines.iter().filter(|one| one.parent != INGRESS && one.kind != "mq") {
        let is_all = leaves.entry(one.interface).or_insert(true);
        *is_all &= one.kind == "fq";
    }
    leaves.into_iter().filter_map(|(interface, is_all)| is_all.then_some(interface)).collect()
}

fn request() -> [u8; HEADER_BYTES + TCMSG_BYTES] {
    let mut bytes = [0; HEADER_BYTES + TCMSG_BYTES];
    bytes[..4].copy_from_slice(&((HEADER_BYTES + TCMSG_BYTES) as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&RTM_GETQDISC.to_ne_bytes());
    bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes
}

/// Takes the messages of one answer; whether it was the last.
fn take(mut bytes: &[u8], found: &mut Vec<Discipline>) -> io::Result<bool> {
    while !bytes.is_empty() {
        let length = word(bytes, 0).ok_or_else(short)? as usize;
        let kind = half(bytes, 4).ok_or_else(short)?;
        if length < HEADER_BYTES || length > bytes.len() {
            return Err(short());
        }
        let body = &bytes[HEADER_BYTES..length];
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = word(body, 0).ok_or_else(short)? as i32;
                return if code == 0 {
                    Ok(true)
                } else {
                    Err(io::Error::from_raw_os_error(code.wrapping_neg()))
                };
            }
            RTM_NEWQDISC => found.extend(discipline(body)),
            _ => {}
        }
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    Ok(false)
}

fn discipline(body: &[u8]) -> Option<Discipline> {
    let (interface, handle, parent) = (word(body, 4)?, word(body, 8)?, word(body, 12)?);
    let mut attributes = body.get(TCMSG_BYTES..)?;
    while attributes.len() >= ATTRIBUTE_BYTES {
        let (length, kind) = (usize::from(half(attributes, 0)?), half(attributes, 2)?);
        let value = attributes.get(ATTRIBUTE_BYTES..length)?;
        if kind == TCA_KIND {
            let text = value.split(|&byte| byte == 0).next().unwrap_or_default();
            let kind = String::from_utf8_lossy(text).into_owned();
            return Some(Discipline { interface, handle, parent, kind });
        }
        attributes = &attributes[length.next_multiple_of(4).min(attributes.len())..];
    }
    None
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn short() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "rtnetlink answered with a message that is cut short")
}

/// Parent of an interface's own discipline (TC_H_ROOT, include/uapi/linux/pkt_sched.h).
pub const ROOT: u32 = u32::MAX;
/// Parent of `ingress` and `clsact`, which queue nothing.
const INGRESS: u32 = 0xffff_fff1;
/// include/uapi/linux/netlink.h and rtnetlink.h.
const HEADER_BYTES: usize = 16;
const TCMSG_BYTES: usize = 20;
const ATTRIBUTE_BYTES: usize = 4;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWQDISC: u16 = 36;
const RTM_GETQDISC: u16 = 38;
const TCA_KIND: u16 = 1;
const ANSWER_BYTES_MAX: usize = 64 << 10;
const ANSWERS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn one(interface: u32, parent: u32, kind: &str) -> Discipline {
        Discipline { interface, handle: 0x1_0000, parent, kind: kind.into() }
    }

    #[test]
    fn every_queue_has_to_keep_departure_times() {
        let found = [
            one(1, ROOT, "noqueue"),
            one(2, ROOT, "fq"),
            one(2, INGRESS, "clsact"),
            one(3, ROOT, "mq"),
            one(3, 0x1_0001, "fq"),
            one(3, 0x1_0002, "fq"),
            one(4, ROOT, "mq"),
            one(4, 0x1_0001, "fq"),
            one(4, 0x1_0002, "pfifo_fast"),
        ];
        assert_eq!(with_fq(&found), BTreeSet::from([2, 3]));
    }

    #[test]
    fn the_kernel_answers() {
        let found = disciplines().expect("every namespace may be asked");
        assert!(found.iter().all(|one| one.interface > 0 && !one.kind.is_empty()), "{found:?}");
    }

    #[test]
    fn damaged_answers_are_refused() {
        for bytes in [&[1_u8][..], &[255, 0, 0, 0, 36, 0, 0, 0], &[0; 16]] {
            assert!(take(bytes, &mut Vec::new()).is_err(), "{bytes:?}");
        }
        let mut message = vec![0; HEADER_BYTES + TCMSG_BYTES + 4];
        let length = message.len() as u32;
        message[..4].copy_from_slice(&length.to_ne_bytes());
        message[4..6].copy_from_slice(&RTM_NEWQDISC.to_ne_bytes());
        // An attribute that claims more than there is.
        message[HEADER_BYTES + TCMSG_BYTES..].copy_from_slice(&[0xff, 0, 1, 0]);
        let mut found = Vec::new();
        assert!(!take(&message, &mut found).unwrap() && found.is_empty());
    }
}
