//! The part of libibverbs' interface that is used, as `infiniband/verbs.h` of rdma-core declares it. Its layouts have
//! been the same since libibverbs 1.1 (symbol versions IBVERBS_1.1); the assertions below hold them to what a C compiler
//! says. Declarations only: [`super::library`] finds the functions, others call them.
use std::ffi::{c_char, c_int, c_uint, c_void};

/// `struct ibv_device`, `ibv_pd`, `ibv_comp_channel` and so on are only pointed to; what is read of them is here.
#[repr(C)]
pub(super) struct Context {
    pub(super) device: *mut c_void,
    pub(super) operations: Operations,
    pub(super) command_fd: c_int,
    pub(super) async_fd: c_int,
}

/// `struct ibv_context_ops`: the calls that do not enter the kernel.
#[repr(C)]
pub(super) struct Operations {
    pub(super) before: [*const c_void; 11],
    pub(super) poll: Option<unsafe extern "C" fn(*mut Queue, c_int, *mut Completion) -> c_int>,
    pub(super) notify: Option<unsafe extern "C" fn(*mut Queue, c_int) -> c_int>,
    pub(super) between: [*const c_void; 12],
    pub(super) post_send:
        Option<unsafe extern "C" fn(*mut Pair, *mut SendRequest, *mut *mut SendRequest) -> c_int>,
    pub(super) post_receive:
        Option<unsafe extern "C" fn(*mut Pair, *mut ReceiveRequest, *mut *mut ReceiveRequest) -> c_int>,
    pub(super) behind: [*const c_void; 5],
}

/// `struct ibv_cq`, its beginning.
#[repr(C)]
pub(super) struct Queue {
    pub(super) context: *mut Context,
}

/// `struct ibv_qp`, its beginning.
#[repr(C)]
pub(super) struct Pair {
    pub(super) context: *mut Context,
    pub(super) before: [u64; 5],
    pub(super) handle: u32,
    pub(super) number: u32,
}

/// `struct ibv_comp_channel`, its beginning.
#[repr(C)]
pub(super) struct Channel {
    pub(super) context: *mut Context,
    pub(super) fd: c_int,
}

/// `struct ibv_mr`.
#[repr(C)]
pub(super) struct Region {
    pub(super) context: *mut Context,
    pub(super) domain: *mut c_void,
    pub(super) address: *mut c_void,
    pub(super) length: usize,
    pub(super) handle: u32,
    pub(super) local_key: u32,
    pub(super) remote_key: u32,
}

/// `struct ibv_sge`.
#[repr(C)]
pub(super) struct Part {
    pub(super) address: u64,
    pub(super) length: u32,
    pub(super) local_key: u32,
}

/// `struct ibv_send_wr`, with the RDMA member of its union.
#[repr(C)]
pub(super) struct SendRequest {
    pub(super) id: u64,
    pub(super) next: *mut SendRequest,
    pub(super) parts: *mut Part,
    pub(super) part_count: c_int,
    pub(super) opcode: c_int,
    pub(super) flags: c_uint,
    /// Big-endian.
    pub(super) immediate: u32,
    pub(super) remote_address: u64,
    pub(super) remote_key: u32,
    pub(super) rest: [u64; 9],
}

/// `struct ibv_recv_wr`.
#[repr(C)]
pub(super) struct ReceiveRequest {
    pub(super) id: u64,
    pub(super) next: *mut ReceiveRequest,
    pub(super) parts: *mut Part,
    pub(super) part_count: c_int,
}

/// `struct ibv_wc`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Completion {
    pub(super) id: u64,
    pub(super) status: c_int,
    pub(super) opcode: c_int,
    pub(super) vendor_error: u32,
    pub(super) bytes: u32,
    /// Big-endian.
    pub(super) immediate: u32,
    pub(super) pair_number: u32,
    pub(super) source_pair: u32,
    pub(super) flags: c_uint,
    pub(super) key_index: u16,
    pub(super) source_lid: u16,
    pub(super) service_level: u8,
    pub(super) path_bits: u8,
}

/// `struct ibv_qp_cap`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Capabilities {
    pub(super) send_requests: u32,
    pub(super) receive_requests: u32,
    pub(super) send_parts: u32,
    pub(super) receive_parts: u32,
    pub(super) inline_bytes: u32,
}

/// `struct ibv_qp_init_attr`.
#[repr(C)]
pub(super) struct PairCreation {
    pub(super) context: *mut c_void,
    pub(super) send_queue: *mut Queue,
    pub(super) receive_queue: *mut Queue,
    pub(super) shared_receives: *mut c_void,
    pub(super) capabilities: Capabilities,
    pub(super) kind: c_int,
    pub(super) all_signalled: c_int,
}

/// `struct ibv_ah_attr`, its `struct ibv_global_route` included.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Address {
    /// Aligned as in the union that it is a member of.
    pub(super) gid: [u64; 2],
    pub(super) flow_label: u32,
    pub(super) gid_index: u8,
    pub(super) hop_limit: u8,
    pub(super) traffic_class: u8,
    pub(super) lid: u16,
    pub(super) service_level: u8,
    pub(super) path_bits: u8,
    pub(super) static_rate: u8,
    pub(super) is_global: u8,
    pub(super) port: u8,
}

/// `struct ibv_qp_attr`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct PairAttributes {
    pub(super) state: c_int,
    pub(super) current_state: c_int,
    pub(super) path_mtu: c_int,
    pub(super) migration: c_int,
    pub(super) key: u32,
    pub(super) receive_sequence: u32,
    pub(super) send_sequence: u32,
    pub(super) remote_pair: u32,
    pub(super) access: c_uint,
    pub(super) capabilities: Capabilities,
    pub(super) address: Address,
    pub(super) other_address: Address,
    pub(super) key_index: u16,
    pub(super) other_key_index: u16,
    pub(super) drained_notification: u8,
    pub(super) draining: u8,
    pub(super) reads_max: u8,
    pub(super) remote_reads_max: u8,
    pub(super) not_ready_timer: u8,
    pub(super) port: u8,
    pub(super) timeout: u8,
    pub(super) retries: u8,
    pub(super) not_ready_retries: u8,
    pub(super) other_port: u8,
    pub(super) other_timeout: u8,
    pub(super) rate_limit: u32,
}

/// `struct ibv_port_attr`, and room for what later versions append.
#[repr(C)]
#[derive(Default)]
pub(super) struct PortAttributes {
    pub(super) state: c_int,
    pub(super) mtu_max: c_int,
    pub(super) mtu: c_int,
    pub(super) rest: [u32; 29],
}

/// `struct ibv_async_event`.
#[repr(C)]
pub(super) struct AsyncEvent {
    pub(super) element: *mut c_void,
    pub(super) kind: c_int,
}

pub(super) type GetDevices = unsafe extern "C" fn(*mut c_int) -> *mut *mut c_void;
pub(super) type FreeDevices = unsafe extern "C" fn(*mut *mut c_void);
pub(super) type DeviceName = unsafe extern "C" fn(*mut c_void) -> *const c_char;
pub(super) type OpenDevice = unsafe extern "C" fn(*mut c_void) -> *mut Context;
pub(super) type CloseDevice = unsafe extern "C" fn(*mut Context) -> c_int;
pub(super) type QueryPort = unsafe extern "C" fn(*mut Context, u8, *mut PortAttributes) -> c_int;
pub(super) type AllocateDomain = unsafe extern "C" fn(*mut Context) -> *mut c_void;
pub(super) type FreeDomain = unsafe extern "C" fn(*mut c_void) -> c_int;
pub(super) type Register = unsafe extern "C" fn(*mut c_void, *mut c_void, usize, c_int) -> *mut Region;
pub(super) type Unregister = unsafe extern "C" fn(*mut Region) -> c_int;
pub(super) type CreateChannel = unsafe extern "C" fn(*mut Context) -> *mut Channel;
pub(super) type DestroyChannel = unsafe extern "C" fn(*mut Channel) -> c_int;
pub(super) type CreateQueue =
    unsafe extern "C" fn(*mut Context, c_int, *mut c_void, *mut Channel, c_int) -> *mut Queue;
pub(super) type DestroyQueue = unsafe extern "C" fn(*mut Queue) -> c_int;
pub(super) type GetEvent = unsafe extern "C" fn(*mut Channel, *mut *mut Queue, *mut *mut c_void) -> c_int;
pub(super) type AcknowledgeEvents = unsafe extern "C" fn(*mut Queue, c_uint);
pub(super) type GetAsyncEvent = unsafe extern "C" fn(*mut Context, *mut AsyncEvent) -> c_int;
pub(super) type AcknowledgeAsyncEvent = unsafe extern "C" fn(*mut AsyncEvent);
pub(super) type CreatePair = unsafe extern "C" fn(*mut c_void, *mut PairCreation) -> *mut Pair;
pub(super) type ModifyPair = unsafe extern "C" fn(*mut Pair, *mut PairAttributes, c_int) -> c_int;
pub(super) type DestroyPair = unsafe extern "C" fn(*mut Pair) -> c_int;

/// `IBV_QPT_RC`.
pub(super) const RELIABLE_CONNECTION: c_int = 2;
/// `IBV_WR_RDMA_WRITE_WITH_IMM`.
pub(super) const WRITE_WITH_IMMEDIATE: c_int = 1;
/// `IBV_SEND_SIGNALED`.
pub(super) const SIGNALLED: c_uint = 2;
/// `IBV_SEND_INLINE`.
pub(super) const INLINE: c_uint = 8;
/// `IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE`.
pub(super) const WRITABLE_FROM_AFAR: c_int = 1 | 2;
/// `IBV_QPS_INIT`.
pub(super) const INITIALISED: c_int = 1;
/// `IBV_QPS_RTR`.
pub(super) const READY_TO_RECEIVE: c_int = 2;
/// `IBV_QPS_RTS`.
pub(super) const READY_TO_SEND: c_int = 3;
/// `IBV_PORT_ACTIVE`.
pub(super) const PORT_ACTIVE: c_int = 4;

/// `enum ibv_qp_attr_mask`: which attributes a call changes.
pub(super) mod mask {
    pub(in super::super) const STATE: i32 = 1;
    pub(in super::super) const ACCESS: i32 = 1 << 3;
    pub(in super::super) const KEY_INDEX: i32 = 1 << 4;
    pub(in super::super) const PORT: i32 = 1 << 5;
    pub(in super::super) const ADDRESS: i32 = 1 << 7;
    pub(in super::super) const PATH_MTU: i32 = 1 << 8;
    pub(in super::super) const TIMEOUT: i32 = 1 << 9;
    pub(in super::super) const RETRIES: i32 = 1 << 10;
    pub(in super::super) const NOT_READY_RETRIES: i32 = 1 << 11;
    pub(in super::super) const RECEIVE_SEQUENCE: i32 = 1 << 12;
    pub(in super::super) const READS_MAX: i32 = 1 << 13;
    pub(in super::super) const NOT_READY_TIMER: i32 = 1 << 15;
    pub(in super::super) const SEND_SEQUENCE: i32 = 1 << 16;
    pub(in super::super) const REMOTE_READS_MAX: i32 = 1 << 17;
    pub(in super::super) const REMOTE_PAIR: i32 = 1 << 20;
}

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<Operations>() == 256 && offset_of!(Operations, poll) == 88);
    assert!(offset_of!(Operations, notify) == 96 && offset_of!(Operations, post_send) == 200);
    assert!(offset_of!(Operations, post_receive) == 208);
    assert!(offset_of!(Context, operations) == 8 && offset_of!(Context, async_fd) == 268);
    assert!(offset_of!(Pair, number) == 52 && offset_of!(Channel, fd) == 8);
    assert!(offset_of!(Region, local_key) == 36 && size_of::<Region>() == 48);
    assert!(size_of::<Part>() == 16 && size_of::<SendRequest>() == 128);
    assert!(offset_of!(SendRequest, immediate) == 36 && offset_of!(SendRequest, remote_key) == 48);
    assert!(size_of::<ReceiveRequest>() == 32 && size_of::<Completion>() == 48);
    assert!(offset_of!(Completion, immediate) == 24 && offset_of!(Completion, flags) == 36);
    assert!(size_of::<PairCreation>() == 64 && offset_of!(PairCreation, kind) == 52);
    assert!(size_of::<Address>() == 32 && offset_of!(Address, lid) == 24);
    assert!(offset_of!(Address, port) == 30 && offset_of!(Address, is_global) == 29);
    assert!(size_of::<PairAttributes>() == 144 && offset_of!(PairAttributes, address) == 56);
    assert!(offset_of!(PairAttributes, key_index) == 120 && offset_of!(PairAttributes, port) == 129);
    assert!(
        offset_of!(PairAttributes, rate_limit) == 136 && offset_of!(PairAttributes, not_ready_retries) == 132
    );
    assert!(size_of::<PortAttributes>() == 128 && offset_of!(PortAttributes, mtu) == 8);
};
