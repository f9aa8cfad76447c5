//! The objects of a queue pair at its device, with the memory that the other end writes into: made, connected, destroyed.
//! Called by [`super::device`]; [`super::pair`] drives it.
//!
//! Completion queues are the basic ones: the extended ones return stale completions on soft-RoCE.
#![expect(unsafe_code, reason = "calls of libibverbs")]

use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use dwcp_abi::wire::rdma::PairEnd;
use nix::errno::Errno;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::device::set_nonblocking;
use super::ffi::{self, mask};
use super::{Device, RdmaError, mtu_code};
use crate::buffers::{Mapping, Wish};

/// Memory that a device may use.
pub(super) struct Registration {
    pub(super) device: Arc<Device>,
    region: NonNull<ffi::Region>,
    pub(super) start: usize,
    pub(super) length: usize,
}

// SAFETY: the region is only read, and unregistered once; the library allows that from any thread.
unsafe impl Send for Registration {}
// SAFETY: as above.
unsafe impl Sync for Registration {}

impl Registration {
    pub(super) fn new(device: &Arc<Device>, memory: &Mapping) -> Result<Self, Errno> {
        let (start, length) = (memory.start(), memory.length());
        // SAFETY: the range is mapped. The device writes into it only where a queue pair's other end was told its key.
        let region = unsafe {
            (device.library.register)(device.domain(), start.cast(), length, ffi::WRITABLE_FROM_AFAR)
        };
        let region = NonNull::new(region).ok_or_else(Errno::last)?;
        Ok(Self { device: Arc::clone(device), region, start: start as usize, length })
    }

    pub(super) fn keys(&self) -> (u32, u32) {
        // SAFETY: the region lives until `self` is dropped.
        let region = unsafe { self.region.as_ref() };
        (region.local_key, region.remote_key)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: it is unregistered once, before its device and its memory go.
        let failed = unsafe { (self.device.library.unregister)(self.region.as_ptr()) };
        if failed != 0 {
            tracing::warn!(failed, "memory stays registered with an RDMA device");
        }
    }
}

/// A queue pair with all that belongs to it. Fields are dropped in this order, after the pair, its queue and channel.
pub(super) struct Raw {
    registration: Registration,
    pub(super) memory: Mapping,
    pub(super) channel: NonNull<ffi::Channel>,
    pub(super) queue: NonNull<ffi::Queue>,
    pub(super) pair: NonNull<ffi::Pair>,
    gid_index: u8,
    pub(super) inline_bytes: u32,
    pub(super) device: Arc<Device>,
}

// SAFETY: a queue pair, its queue and channel may be used from any thread, and `&mut self` keeps it to one at a time.
unsafe impl Send for Raw {}

impl std::fmt::Debug for Raw {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Raw").field("number", &self.number()).finish_non_exhaustive()
    }
}

impl Raw {
    /// Makes a pair that is initialised and has its receives posted.
    pub(super) fn new(device: &Arc<Device>, gid_index: u8) -> Result<Self, RdmaError> {
        let failed = |call, errno| RdmaError::Call { call, errno };
        let memory = Mapping::anonymous(usize::from(SLOTS) * SLOT_BYTES as usize, Wish::Never)
            .map_err(|errno| failed("cannot map slots", errno))?;
        let registration = Registration::new(device, &memory)
            .map_err(|errno| failed("cannot register the slots' memory", errno))?;
        let library = device.library;
        // SAFETY: the context is open.
        let channel = NonNull::new(unsafe { (library.create_channel)(device.context()) })
            .ok_or_else(|| failed("cannot have a completion channel", Errno::last()))?;
        let entries = (WRITES_MAX + RECEIVES) as i32;
        // SAFETY: context and channel are open.
        let queue = unsafe {
            (library.create_queue)(device.context(), entries, ptr::null_mut(), channel.as_ptr(), 0)
        };
        let Some(queue) = NonNull::new(queue) else {
            let error = failed("cannot have a completion queue", Errno::last());
            // SAFETY: nothing uses the channel.
            unsafe { (library.destroy_channel)(channel.as_ptr()) };
            return Err(error);
        };
        let (pair, inline_bytes) = match create(device, queue) {
            Ok(pair) => pair,
            Err(errno) => {
                // SAFETY: nothing uses the queue.
                unsafe { (library.destroy_queue)(queue.as_ptr()) };
                // SAFETY: nothing uses the channel any more.
                unsafe { (library.destroy_channel)(channel.as_ptr()) };
                return Err(failed("cannot have a queue pair", errno));
            }
        };
        let device = Arc::clone(device);
        let mut raw = Self { registration, memory, channel, queue, pair, gid_index, inline_bytes, device };
        raw.initialise().map_err(|errno| failed("cannot initialise a queue pair", errno))?;
        Ok(raw)
    }

    fn initialise(&mut self) -> Result<(), Errno> {
        set_nonblocking(self.channel_fd())?;
        let mut attributes = ffi::PairAttributes {
            state: ffi::INITIALISED,
            port: self.device.port().port,
            access: ffi::WRITABLE_FROM_AFAR as u32,
            ..ffi::PairAttributes::default()
        };
        self.modify(&mut attributes, mask::STATE | mask::KEY_INDEX | mask::PORT | mask::ACCESS)?;
        (0..RECEIVES).try_for_each(|_| self.post_receive())
    }

    /// What the other end has to know of it.
    pub(super) fn end(&self, gid: [u8; 16], lid: u16, mtu: u16) -> Result<PairEnd, RdmaError> {
        let mut random = [0; 4];
        SystemRandom::new()
            .fill(&mut random)
            .map_err(|_| RdmaError::Call { call: "no random number for a queue pair", errno: Errno::EIO })?;
        Ok(PairEnd {
            queue_pair: self.number(),
            packet_sequence: u32::from_le_bytes(random) >> 8,
            gid,
            lid,
            mtu,
            memory_address: self.memory.start() as u64,
            memory_key: self.registration.keys().1,
            slots: SLOTS,
            slot_bytes: SLOT_BYTES,
        })
    }

    /// Ready to receive, then ready to send.
    pub(super) fn connect(&mut self, ours: &PairEnd, theirs: &PairEnd) -> Result<(), RdmaError> {
        let is_global = self.device.port().is_ethernet() || theirs.lid == 0;
        let (first, second) = theirs.gid.split_at(8);
        let half = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_ne_bytes);
        let mut receive = ffi::PairAttributes {
            state: ffi::READY_TO_RECEIVE,
            path_mtu: mtu_code(if theirs.mtu < ours.mtu { theirs } else { ours }),
            remote_pair: theirs.queue_pair,
            receive_sequence: theirs.packet_sequence,
            remote_reads_max: 1,
            not_ready_timer: NOT_READY_TIMER,
            address: ffi::Address {
                gid: [half(first), half(second)],
                gid_index: self.gid_index,
                hop_limit: HOPS_MAX,
                lid: theirs.lid,
                is_global: is_global.into(),
                port: self.device.port().port,
                ..ffi::Address::default()
            },
            ..ffi::PairAttributes::default()
        };
        let receive_mask = mask::STATE
            | mask::ADDRESS
            | mask::PATH_MTU
            | mask::REMOTE_PAIR
            | mask::RECEIVE_SEQUENCE
            | mask::REMOTE_READS_MAX
            | mask::NOT_READY_TIMER;
        let unreachable = |errno: Errno| RdmaError::End(errno.desc().to_owned());
        self.modify(&mut receive, receive_mask).map_err(unreachable)?;
        let mut send = ffi::PairAttributes {
            state: ffi::READY_TO_SEND,
            send_sequence: ours.packet_sequence,
            timeout: TIMEOUT,
            retries: RETRIES,
            not_ready_retries: NOT_READY_RETRIES,
            reads_max: 1,
            ..ffi::PairAttributes::default()
        };
        let send_mask = mask::STATE
            | mask::SEND_SEQUENCE
            | mask::TIMEOUT
            | mask::RETRIES
            | mask::NOT_READY_RETRIES
            | mask::READS_MAX;
        self.modify(&mut send, send_mask).map_err(unreachable)
    }

    fn modify(&mut self, attributes: &mut ffi::PairAttributes, mask: i32) -> Result<(), Errno> {
        // SAFETY: the pair lives, and the attributes are read during the call.
        let failed =
            unsafe { (self.device.library.modify_pair)(self.pair.as_ptr(), &raw mut *attributes, mask) };
        // Drivers say the error, or -1 and errno.
        match failed {
            0 => Ok(()),
            ..0 => Err(Errno::last()),
            errno => Err(Errno::from_raw(errno)),
        }
    }

    /// Room for one more write of the other end. It names its place itself, so that there is no buffer.
    pub(super) fn post_receive(&mut self) -> Result<(), Errno> {
        let mut request =
            ffi::ReceiveRequest { id: RECEIVE, next: ptr::null_mut(), parts: ptr::null_mut(), part_count: 0 };
        let mut bad = ptr::null_mut();
        let post = self.operations().post_receive.ok_or(Errno::ENOSYS)?;
        // SAFETY: the pair lives, and the request is copied during the call.
        result(unsafe { post(self.pair.as_ptr(), &raw mut request, &raw mut bad) })
    }

    pub(super) fn operations(&self) -> &ffi::Operations {
        // SAFETY: the context is open while the device lives; its table of calls does not change.
        unsafe { &(*self.device.context()).operations }
    }

    fn number(&self) -> u32 {
        // SAFETY: the pair lives.
        unsafe { self.pair.as_ref() }.number
    }

    pub(super) fn channel_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the channel lives.
        let fd = unsafe { self.channel.as_ref() }.fd;
        // SAFETY: the descriptor is open as long as the channel.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let library = self.device.library;
        // SAFETY: the pair lives; after this call no device touches memory on its behalf.
        let pair = unsafe { (library.destroy_pair)(self.pair.as_ptr()) };
        // SAFETY: the queue's only pair is gone, and all its events were acknowledged as they were taken.
        let queue = unsafe { (library.destroy_queue)(self.queue.as_ptr()) };
        // SAFETY: the channel's only queue is gone.
        let channel = unsafe { (library.destroy_channel)(self.channel.as_ptr()) };
        if pair != 0 {
            // The device may still write there.
            self.memory.leak();
        }
        if (pair, queue, channel) != (0, 0, 0) {
            tracing::warn!(pair, queue, channel, "a queue pair was not closed well");
        }
    }
}

fn create(device: &Device, queue: NonNull<ffi::Queue>) -> Result<(NonNull<ffi::Pair>, u32), Errno> {
    let mut creation = ffi::PairCreation {
        context: ptr::null_mut(),
        send_queue: queue.as_ptr(),
        receive_queue: queue.as_ptr(),
        shared_receives: ptr::null_mut(),
        capabilities: ffi::Capabilities {
            send_requests: WRITES_MAX,
            receive_requests: RECEIVES,
            send_parts: 1,
            receive_parts: 1,
            inline_bytes: INLINE_BYTES,
        },
        kind: ffi::RELIABLE_CONNECTION,
        all_signalled: 0,
    };
    // SAFETY: domain and queue live; what was granted is written back during the call.
    let pair = unsafe { (device.library.create_pair)(device.domain(), &raw mut creation) };
    let pair = NonNull::new(pair).ok_or_else(Errno::last)?;
    Ok((pair, creation.capabilities.inline_bytes.min(INLINE_BYTES)))
}

pub(super) fn result(failed: i32) -> Result<(), Errno> {
    match failed {
        0 => Ok(()),
        ..0 => Err(Errno::last()),
        errno => Err(Errno::from_raw(errno)),
    }
}

/// Slots of each pair, and their size: 2 MiB, which at 100 Gbit/s are 160 µs of road. Small enough that an
/// acknowledgement does not occupy much, large enough that a chunk is a few writes.
pub(super) const SLOTS: u16 = 32;
pub(super) const SLOT_BYTES: u32 = 64 * 1024;
/// Writes under way, words about slots included.
pub(super) const WRITES_MAX: u32 = 128;
/// A write into each slot, and words about slots: at most one for a quarter of what we have filled.
const RECEIVES: u32 = SLOTS as u32 + 16;
/// Such small frames are copied into the request. 0 would be granted everywhere; this is, too, by all current devices.
const INLINE_BYTES: u32 = 64;
/// 4.096 µs · 2^16 = 268 ms without an answer, seven times: a path that is gone is given up after two seconds
/// (InfiniBand Architecture Specification 1.4, 9.9.2.1.1). Not 7 retries: soft-RoCE takes that for endless.
const TIMEOUT: u8 = 16;
const RETRIES: u8 = 6;
/// The other end always has receives posted; where it has not, 5 ms (code 18) between six tries are plenty.
const NOT_READY_TIMER: u8 = 18;
const NOT_READY_RETRIES: u8 = 6;
const HOPS_MAX: u8 = 64;
/// Ids of requests.
pub(super) const WRITE: u64 = 1;
const RECEIVE: u64 = 2;
