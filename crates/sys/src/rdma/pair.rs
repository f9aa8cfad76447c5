//! A connected queue pair of a device, as a proactor drives it. Made by [`super::device`].
//!
//! Completion queues are the basic ones: the extended ones return stale completions on soft-RoCE.
#![expect(unsafe_code, reason = "calls of libibverbs")]

use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::Arc;

use dwcp_abi::wire::rdma::PairEnd;
use nix::errno::Errno;

use super::ffi;
use super::raw::{Raw, Registration, SLOT_BYTES, SLOTS, WRITE, WRITES_MAX, result};
use super::{Done, Lent, Shape, Verbs};
use crate::buffers::Mapping;

/// A pair that is connected.
pub(super) struct Connected {
    raw: Raw,
    theirs: PairEnd,
    lent: Option<Arc<Registration>>,
    completions: [ffi::Completion; BATCH],
}

impl Connected {
    /// Of a pair that was connected to `theirs`.
    pub(super) fn new(raw: Raw, theirs: PairEnd) -> Self {
        Self { raw, theirs, lent: None, completions: [ffi::Completion::default(); BATCH] }
    }
}

impl Verbs for Connected {
    fn shape(&self) -> Shape {
        Shape {
            own_slots: SLOTS,
            own_slot_bytes: SLOT_BYTES,
            their_slots: self.theirs.slots,
            their_slot_bytes: self.theirs.slot_bytes,
            writes_max: WRITES_MAX,
        }
    }

    fn lend(&mut self, memory: &Mapping, lent: &mut Vec<Lent>) -> Result<(), Errno> {
        let is_ours = |lent: &&Lent| Arc::ptr_eq(&lent.0.device, &self.raw.device);
        let registration = match lent.iter().find(is_ours) {
            Some(lent) => Arc::clone(&lent.0),
            None => {
                let registration = Arc::new(Registration::new(&self.raw.device, memory)?);
                lent.push(Lent(Arc::clone(&registration)));
                registration
            }
        };
        self.lent = Some(registration);
        Ok(())
    }

    fn write(&mut self, offset: usize, length: u32, slot: u16, immediate: u32) -> Result<(), Errno> {
        let mut part = ffi::Part { address: 0, length, local_key: 0 };
        if length > 0 {
            let lent = self.lent.as_ref().ok_or(Errno::EFAULT)?;
            assert!(offset + length as usize <= lent.length, "a write leaves the lent memory");
            part.address = (lent.start + offset) as u64;
            part.local_key = lent.keys().0;
        }
        let inline = length > 0 && length <= self.raw.inline_bytes;
        let mut request = ffi::SendRequest {
            id: WRITE,
            next: ptr::null_mut(),
            parts: &raw mut part,
            part_count: (length > 0).into(),
            opcode: ffi::WRITE_WITH_IMMEDIATE,
            flags: ffi::SIGNALLED | if inline { ffi::INLINE } else { 0 },
            immediate: immediate.to_be(),
            remote_address: self.theirs.memory_address + u64::from(slot) * u64::from(self.theirs.slot_bytes),
            remote_key: self.theirs.memory_key,
            rest: [0; 9],
        };
        let mut bad = ptr::null_mut();
        let post = self.raw.operations().post_send.ok_or(Errno::ENOSYS)?;
        // SAFETY: the pair lives; request and part are copied during the call. The bytes lie in the registered memory,
        // which outlives the pair.
        result(unsafe { post(self.raw.pair.as_ptr(), &raw mut request, &raw mut bad) })
    }

    fn copy_out(&self, slot: u16, start: u32, to: &mut [u8]) {
        assert!(slot < SLOTS && start as usize + to.len() <= SLOT_BYTES as usize, "no such bytes in a slot");
        let offset = usize::from(slot) * SLOT_BYTES as usize + start as usize;
        // SAFETY: the slot lies inside the mapping, which has room for all of them.
        let from = unsafe { self.raw.memory.start().add(offset) };
        // SAFETY: both ranges are valid for so many bytes and do not overlap: nothing outside has a slice of the slots.
        unsafe { ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) };
    }

    fn poll(&mut self, out: &mut Vec<Done>) {
        let Some(poll) = self.raw.operations().poll else { return };
        loop {
            let room = self.completions.as_mut_ptr();
            // SAFETY: the queue lives, and there is room for so many completions.
            let count = unsafe { poll(self.raw.queue.as_ptr(), BATCH as i32, room) };
            if count < 0 {
                return out.push(Done::Broken("its completion queue cannot be read".to_owned()));
            }
            for index in 0..count as usize {
                let completion = self.completions[index];
                out.push(self.done(&completion));
            }
            if (count as usize) < BATCH {
                return;
            }
        }
    }

    fn arm(&mut self) -> Result<(), Errno> {
        let notify = self.raw.operations().notify.ok_or(Errno::ENOSYS)?;
        // SAFETY: the queue lives.
        result(unsafe { notify(self.raw.queue.as_ptr(), 0) })
    }

    fn take_events(&mut self) {
        let library = self.raw.device.library;
        let (mut queue, mut context) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the channel lives and does not block; both places are written during the call.
        while unsafe { (library.event)(self.raw.channel.as_ptr(), &raw mut queue, &raw mut context) } == 0 {
            // SAFETY: the event is of the channel's only queue, and it is acknowledged once.
            unsafe { (library.acknowledge)(self.raw.queue.as_ptr(), 1) };
        }
    }

    fn events(&self) -> Result<OwnedFd, Errno> {
        owned(self.raw.channel_fd())
    }

    fn alarms(&self) -> Result<OwnedFd, Errno> {
        owned(self.raw.device.alarms())
    }

    fn alarmed(&mut self) -> Option<String> {
        self.raw.device.alarmed()
    }
}

fn owned(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    fd.try_clone_to_owned().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
}

impl Connected {
    fn done(&mut self, completion: &ffi::Completion) -> Done {
        if completion.status != 0 {
            return Done::Broken(status(completion.status));
        }
        if completion.id == WRITE {
            return Done::Written;
        }
        match self.raw.post_receive() {
            Ok(()) => {
                Done::Received { immediate: u32::from_be(completion.immediate), bytes: completion.bytes }
            }
            Err(errno) => Done::Broken(format!("no room for further writes: {}", errno.desc())),
        }
    }
}

/// `enum ibv_wc_status`, for the log and the operator.
fn status(code: i32) -> String {
    match code {
        5 => "it is in the error state".to_owned(),
        9..=11 => "the other end's device refuses the write".to_owned(),
        12 => "the other end's device does not answer: is UDP port 4791 open on the way?".to_owned(),
        13 => "the other end takes no writes".to_owned(),
        other => format!("the device reports status {other} (see ibv_wc_status)"),
    }
}

/// Completions that one call takes.
const BATCH: usize = 16;
