//! The program of a control group's TCP sockets: classes each connection, holds it to its class's rate while it runs
//! and writes what the kernel knows of it into the flow table. Needs no queueing discipline: TCP paces itself.
//!
//! Runs at a connection's beginning and end, and of those that have a class at each measured round trip: that is where
//! a policy which changed meanwhile is noticed. A connection that stood before the program was attached is not seen.
use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_RTT_CB,
        BPF_SOCK_OPS_RTT_CB_FLAG, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
        BPF_SOCK_OPS_TCP_CONNECT_CB, bpf_sock_ops,
    },
    helpers::{bpf_getsockopt, bpf_ktime_get_coarse_ns, bpf_setsockopt},
    macros::sock_ops,
    programs::SockOpsContext,
};
use core::{ffi::c_void, ptr::read_volatile};
use dwcp_abi::bpf::{ClassPolicy, Direction, Flow, FlowKey, FlowState, mapped};
use dwcp_ebpf::{
    class::{Verdict, class_of},
    pace::{UNPACED, rate},
    parse::{Kind, PROTOCOL_TCP, Reading, Segment},
};

use crate::maps::{self, Kernel};

#[sock_ops]
fn dwcp_socket(context: SockOpsContext) -> u32 {
    match context.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => begin(&context),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => open(&context),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => {
            begin(&context);
            open(&context);
        }
        BPF_SOCK_OPS_RTT_CB => follow(&context),
        BPF_SOCK_OPS_STATE_CB if context.arg(1) == TCP_CLOSE => close(&context),
        _ => {}
    }
    // 1 = the operation goes on; the reply stays 0, which every operation takes for "no opinion".
    1
}

/// Congestion control, before the first packet where we connect.
#[inline(always)]
fn begin(context: &SockOpsContext) {
    let Some(key) = key(context) else { return };
    let verdict = classed(&key);
    if verdict.is_own {
        return;
    }
    let Some(policy) = maps::policy(verdict.class.number()) else { return };
    let mut name = match policy.congestion {
        1 => *b"bbr\0\0\0\0\0",
        2 => *b"cubic\0\0\0",
        3 => *b"reno\0\0\0\0",
        _ => return,
    };
    // A kernel that lacks it leaves the socket as it is, which is what the host's administrator chose.
    // SAFETY: the context is the program's argument; name and length are those of the buffer on this stack.
    let _lacking =
        unsafe { bpf_setsockopt(context.as_ptr(), SOL_TCP, TCP_CONGESTION, name.as_mut_ptr().cast(), 8) };
}

/// A connection stands: into the table with it, if it has a class.
#[inline(always)]
fn open(context: &SockOpsContext) {
    let Some(key) = key(context) else { return };
    let verdict = classed(&key);
    if verdict.class.number() == 0 {
        return;
    }
    let mut flow = Flow {
        class: u64::from(verdict.class.number()),
        state: FlowState::Open as u64,
        generation: maps::switch().generation,
        ..Flow::default()
    };
    if !verdict.is_own
        && let Some(policy) = maps::policy(verdict.class.number())
    {
        pace(context, &mut flow, policy);
    }
    measure(context, &mut flow);
    // A full table drops what was not seen for longest.
    let _full = maps::DWCP_FLOWS.insert(key, flow, 0);
    let flags = context.cb_flags() | BPF_SOCK_OPS_RTT_CB_FLAG | BPF_SOCK_OPS_STATE_CB_FLAG;
    // A kernel without these calls (before 5.3) paces, and does not follow.
    let _lacking = context.set_cb_flags(flags as i32);
}

/// A round trip was measured.
#[inline(always)]
fn follow(context: &SockOpsContext) {
    let Some(key) = key(context) else { return };
    let Some(entry) = maps::DWCP_FLOWS.get_ptr_mut(key) else {
        // The table dropped it: it begins anew, with what its owner had set no longer known.
        return open(context);
    };
    // SAFETY: entries of this map are preallocated: the pointer stays valid for the run. The socket is locked, so that
    // this is its only writer.
    let flow = unsafe { &mut *entry };
    let verdict = classed(&key);
    let generation = maps::switch().generation;
    if flow.generation != generation {
        flow.generation = generation;
        flow.class = u64::from(verdict.class.number());
    }
    if !verdict.is_own
        && let Some(policy) = maps::policy(flow.class as u32)
    {
        pace(context, flow, policy);
    }
    measure(context, flow);
}

#[inline(always)]
fn close(context: &SockOpsContext) {
    let Some(key) = key(context) else { return };
    let Some(entry) = maps::DWCP_FLOWS.get_ptr_mut(key) else { return };
    // SAFETY: as in `follow`.
    let flow = unsafe { &mut *entry };
    measure(context, flow);
    flow.state = FlowState::Closed as u64;
}

/// Sets the socket's rate where the policy's differs from what was last set.
#[inline(always)]
fn pace(context: &SockOpsContext, flow: &mut Flow, policy: &ClassPolicy) {
    if flow.rate_bytes_per_s == policy.flow_bytes_per_s {
        return;
    }
    if flow.own_bytes_per_s == 0 {
        flow.own_bytes_per_s = u64::from(own_rate(context));
    }
    let mut value = rate(flow.own_bytes_per_s as u32, policy.flow_bytes_per_s);
    // SAFETY: the context is the program's argument; the value is four bytes on this stack.
    let refused = unsafe {
        let value: *mut c_void = (&raw mut value).cast();
        bpf_setsockopt(context.as_ptr(), SOL_SOCKET, SO_MAX_PACING_RATE, value, 4)
    };
    if refused == 0 {
        flow.rate_bytes_per_s = policy.flow_bytes_per_s;
    }
}

/// What the socket's owner has set.
#[inline(always)]
fn own_rate(context: &SockOpsContext) -> u32 {
    let mut value = UNPACED;
    // SAFETY: the context is the program's argument; the value is four bytes on this stack.
    let refused = unsafe {
        let value: *mut c_void = (&raw mut value).cast();
        bpf_getsockopt(context.as_ptr(), SOL_SOCKET, SO_MAX_PACING_RATE, value, 4)
    };
    if refused == 0 && value != 0 { value } else { UNPACED }
}

/// Copies the kernel's figures of the connection.
#[inline(always)]
fn measure(context: &SockOpsContext, flow: &mut Flow) {
    let socket = context.ops;
    flow.bytes_sent = field(socket, |s| unsafe { &raw const (*s).bytes_acked });
    flow.bytes_received = field(socket, |s| unsafe { &raw const (*s).bytes_received });
    flow.packets_sent = u64::from(field(socket, |s| unsafe { &raw const (*s).segs_out }));
    flow.packets_received = u64::from(field(socket, |s| unsafe { &raw const (*s).segs_in }));
    flow.retransmits = u64::from(field(socket, |s| unsafe { &raw const (*s).total_retrans }));
    // The kernel keeps eighths.
    flow.rtt_us = u64::from(field(socket, |s| unsafe { &raw const (*s).srtt_us })) / 8;
    let least = field(socket, |s| unsafe { &raw const (*s).rtt_min });
    flow.rtt_min_us = if least == u32::MAX { 0 } else { u64::from(least) };
    // SAFETY: reads a clock.
    flow.last_ns = unsafe { bpf_ktime_get_coarse_ns() };
}

#[inline(always)]
fn classed(key: &FlowKey) -> Verdict {
    let segment = Segment {
        protocol: PROTOCOL_TCP,
        dscp: 0,
        source_port: key.ports as u16,
        destination_port: (key.ports >> 16) as u16,
        source: key.local,
        destination: key.remote,
    };
    let tables = Kernel { uses: maps::switch().uses & SOCKET_TABLES, mark: 0, cgroup: 0 };
    class_of(&Reading { kind: Kind::Segment, segment }, Direction::Egress, &tables)
}

/// The connection's ends; `None` for other families.
#[inline(always)]
fn key(context: &SockOpsContext) -> Option<FlowKey> {
    let socket = context.ops;
    // Everything is read, whatever the family: of two reads of which one happens the compiler makes one at a computed
    // place, which the verifier refuses. Of wider fields it wants each word read by itself.
    let word = |s: fn(*mut bpf_sock_ops) -> *const u32| field(socket, s);
    let local4 = word(|s| unsafe { &raw const (*s).local_ip4 });
    let remote4 = word(|s| unsafe { &raw const (*s).remote_ip4 });
    let local6 = [
        word(|s| unsafe { &raw const (*s).local_ip6[0] }),
        word(|s| unsafe { &raw const (*s).local_ip6[1] }),
        word(|s| unsafe { &raw const (*s).local_ip6[2] }),
        word(|s| unsafe { &raw const (*s).local_ip6[3] }),
    ];
    let remote6 = [
        word(|s| unsafe { &raw const (*s).remote_ip6[0] }),
        word(|s| unsafe { &raw const (*s).remote_ip6[1] }),
        word(|s| unsafe { &raw const (*s).remote_ip6[2] }),
        word(|s| unsafe { &raw const (*s).remote_ip6[3] }),
    ];
    let local_port = word(|s| unsafe { &raw const (*s).local_port }) as u16;
    // In the order of the wire, in the upper half on little-endian machines (sock_ops_convert_ctx_access).
    let remote_port = u32::from_be(word(|s| unsafe { &raw const (*s).remote_port })) as u16;
    let (local, remote) = match context.family() {
        AF_INET => (mapped(local4), mapped(remote4)),
        AF_INET6 => (local6, remote6),
        _ => return None,
    };
    let ports = FlowKey::join_ports(local_port, remote_port);
    Some(FlowKey { local, remote, ports, protocol: u32::from(PROTOCOL_TCP) })
}

/// Reads one field of the context, not merged with others.
#[inline(always)]
fn field<T: Copy>(socket: *mut bpf_sock_ops, place: fn(*mut bpf_sock_ops) -> *const T) -> T {
    // SAFETY: the context pointer is the program's argument, valid for the whole run; the verifier checks the field.
    unsafe { read_volatile(place(socket)) }
}

/// Tables that a connection can be looked up in: it has no mark yet, and control groups are attached to.
const SOCKET_TABLES: u64 = dwcp_abi::bpf::USES_TUPLES;
/// include/net/tcp_states.h.
const TCP_CLOSE: u32 = 7;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const SOL_SOCKET: i32 = 1;
/// include/uapi/asm-generic/socket.h.
const SO_MAX_PACING_RATE: i32 = 47;
const SOL_TCP: i32 = 6;
/// include/uapi/linux/tcp.h.
const TCP_CONGESTION: i32 = 13;
