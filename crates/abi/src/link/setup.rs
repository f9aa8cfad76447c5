//! Set-up: what goes over the unix socket before the rings are used, and whenever the plan changes.
//!
//! ```text
//! control ── Attach ─────────────────────────────► dataplane
//! control ◄─ Attached + SCM_RIGHTS ─────────────── dataplane   memfd per worker and one for the node, then per
//!                                                              worker: command doorbell, event doorbell (eventfds)
//! control ── Transport, Peer…, Export…, Tunnel…, TunnelAllow…,
//!            Kernel, Class…, Selector…, Rdma,
//!            PlanEnd ──────────────────────────► dataplane   whole plan; replaces the former at PlanEnd
//! ```
use crate::codec::{CodecError, Encoded, Reader, codes, messages, records};

messages! {
    /// One message of control on the set-up socket.
    pub enum Setup<'a> {
        /// First message of a connection.
        Attach(Attach<'a>) = 1,
        /// Transport settings.
        Transport(Transport) = 2,
        /// One peer.
        Peer(Peer<'a>) = 3,
        /// One export.
        Export(Export<'a>) = 4,
        /// The plan is complete: use it from now on.
        PlanEnd(PlanEnd) = 5,
        /// A listener whose connections go to a peer.
        Tunnel(Tunnel<'a>) = 6,
        /// Targets that a peer may be connected to here.
        TunnelAllow(TunnelAllow<'a>) = 7,
        /// What the kernel programs are to do; without it they do nothing but count.
        Kernel(Kernel<'a>) = 8,
        /// What holds for one class of traffic.
        Class(Class) = 9,
        /// Something that belongs to a class.
        Selector(Selector<'a>) = 10,
        /// Whether lanes may go over RDMA; without it they do not.
        Rdma(Rdma<'a>) = 11,
    }
}

codes! {
    /// What a peer may do below an export.
    pub enum Access: u8 {
        /// Fetch from it.
        Read = 1,
        /// Send into it.
        Write = 2,
        /// Both.
        ReadWrite = 3,
    }
}

codes! {
    /// Whether the peer port is guarded.
    pub enum GuardMode: u8 {
        /// No.
        Off = 0,
        /// Yes, unless somebody else could be cut off.
        On = 1,
        /// Yes.
        Force = 2,
    }

    /// What a [`Selector`] looks at.
    pub enum SelectorKind: u8 {
        /// `protocol` and `local_port`, which is a port at either end.
        Port = 1,
        /// `protocol` and both ends.
        Connection = 2,
        /// `value`, a differentiated services code point.
        Dscp = 3,
        /// `value`, a mark of the firewall.
        Mark = 4,
        /// `path`, a control group.
        Cgroup = 5,
    }
}

records! {
    /// First message of control. The dataplane has no configuration of its own: at the first `Attach` after its start
    /// it takes what it is made of from here; later ones change nothing of that.
    pub struct Attach<'a> {
        /// [`super::LINK_VERSION`] of control.
        pub version: u32,
        /// Workers; 0 = one per physical core but those for control.
        pub workers: u16,
        /// Cores of the workers, each `u16`, little-endian; empty = chosen from the topology.
        pub cores: &'a [u8],
        /// Kernel interface: 0 = the best that is permitted, 1 = io_uring, 2 = epoll.
        pub backend: u8,
        /// 1 = buffers on hugepages where there are any.
        pub hugepages: bool,
        /// Bytes of buffers of all workers together.
        pub buffer_bytes: u64,
        /// Where to listen for peers, `address:port`; empty = nowhere, this node only dials.
        pub listen: &'a [u8],
    }

    /// Answer of the dataplane; the descriptors travel beside it.
    pub struct Attached {
        /// [`super::LINK_VERSION`] of the dataplane.
        pub version: u32,
        /// Number of workers. Descriptors: node memfd, then (memfd, command doorbell, event doorbell) per worker.
        pub workers: u16,
        /// Random, new at every start of the dataplane: tells control whether its jobs live on.
        pub instance: u64,
        /// The dataplane's process id, for supervision and logs.
        pub pid: u32,
        /// SHA-256 of the node's certificate: what peers list as this node's identity.
        pub fingerprint: [u8; 32],
    }

    /// Settings that may change while the dataplane runs.
    pub struct Transport {
        /// Fewest lanes of a busy session with large objects.
        pub min_streams: u16,
        /// Lanes to open for a job that does not say.
        pub initial_streams: u16,
        /// Most lanes of a session, dialled and accepted together.
        pub max_streams: u16,
        /// 1 = payload encrypted. 0 = lanes go on in clear after the authenticated handshake, if both ends say so.
        pub encrypt: bool,
        /// Congestion control: 0 = the host's default, 1 = bbr, 2 = cubic, 3 = reno, [`CONGESTION_AUTO`].
        pub congestion: u8,
        /// SO_SNDBUF of a lane in bytes; 0 = the kernel's autotuning.
        pub send_buffer_size: u32,
        /// SO_RCVBUF of a lane in bytes; 0 = the kernel's autotuning.
        pub recv_buffer_size: u32,
        /// Total pacing rate in bytes per second; 0 = unpaced.
        pub pacing_bytes_per_s: u64,
        /// Until a connection and its handshake must stand, in milliseconds.
        pub connect_timeout_ms: u32,
        /// A lane that owes bytes and brings none for so long is closed, in milliseconds.
        pub read_timeout_ms: u32,
        /// A send that makes no progress for so long costs the lane, in milliseconds.
        pub write_timeout_ms: u32,
        /// Codec: 0 = none, 1 = lz4, 2 = snappy, 3 = zstd.
        pub codec: u8,
        /// Level of the codec.
        pub codec_level: u8,
        /// 1 = compress only while the link is slower than the codec.
        pub codec_adaptive: bool,
        /// Least ratio of plain to coded bytes for which a chunk is sent coded, in thousandths.
        pub codec_ratio_min_thousandths: u16,
        /// 1 = differences are sent to what the other end has, where that is faster.
        pub deltas: bool,
        /// Bytes of what was sent that are kept for that.
        pub baseline_store_bytes: u64,
    }

    /// A peer that may connect and be connected to.
    pub struct Peer<'a> {
        /// Name, unique in the plan.
        pub name: &'a [u8],
        /// SHA-256 of its certificate.
        pub fingerprint: [u8; 32],
        /// `host:port` to dial; empty = it only dials us.
        pub address: &'a [u8],
        /// Ceiling of all lanes to it together; 0 = none but that of [`Transport`].
        pub pacing_bytes_per_s: u64,
    }

    /// A directory that peers may use.
    pub struct Export<'a> {
        /// Name, unique in the plan.
        pub name: &'a [u8],
        /// Absolute path of the directory.
        pub path: &'a [u8],
        /// What they may do.
        pub access: Access,
        /// Names of the peers that may, each `u16` length and bytes; empty = every known peer.
        pub peers: &'a [u8],
        /// 1 = they may also decide owners, set-user-ID bits and devices.
        pub privileged: bool,
    }

    /// A listener: what connects to it is carried to the peer, which connects it to the target.
    pub struct Tunnel<'a> {
        /// `address:port` to listen at, unique in the plan.
        pub listen: &'a [u8],
        /// Name of the peer in the plan.
        pub peer: &'a [u8],
        /// `host:port`, as seen from the peer.
        pub target: &'a [u8],
    }

    /// Targets that a peer's tunnels may be connected to.
    pub struct TunnelAllow<'a> {
        /// Name of the peer; empty = every known peer.
        pub peer: &'a [u8],
        /// The host as tunnels have to name it, without brackets; empty = every host.
        pub host: &'a [u8],
        /// First port.
        pub port_first: u16,
        /// Last port.
        pub port_last: u16,
    }

    /// What the kernel programs are to do.
    pub struct Kernel<'a> {
        /// 0 = they are not wanted: unload them and everything that was pinned.
        pub enabled: bool,
        /// Control group whose connections are paced, below the mount point of cgroup2; empty = the node's own.
        pub cgroup: &'a [u8],
        /// Whether the peer port is guarded.
        pub guard: GuardMode,
        /// Packets per second from one unknown address.
        pub guard_source_per_s: u32,
        /// Packets per second from all unknown addresses together.
        pub guard_total_per_s: u32,
    }

    /// What holds for one class.
    pub struct Class {
        /// Its number in `abi::bpf::Class`.
        pub class: u8,
        /// Ceiling of each connection in bytes per second; 0 = none. For bulk it holds for the node's lanes too.
        pub flow_bytes_per_s: u64,
        /// Ceiling to each remote address in bytes per second on the wire; 0 = none.
        pub peer_bytes_per_s: u64,
        /// Congestion control, as in [`Transport`]; 0 = as it is.
        pub congestion: u8,
        /// Priority of its packets; 0 = as it is.
        pub priority: u8,
    }

    /// Something that belongs to a class. Fields that the kind does not name are zero.
    pub struct Selector<'a> {
        /// Its number in `abi::bpf::Class`.
        pub class: u8,
        /// What is looked at.
        pub kind: SelectorKind,
        /// IP protocol number.
        pub protocol: u8,
        /// Port of this host.
        pub local_port: u16,
        /// Port of the other.
        pub remote_port: u16,
        /// Address of this host; IPv4 ones are mapped into IPv6.
        pub local: [u8; 16],
        /// Address of the other.
        pub remote: [u8; 16],
        /// Number.
        pub value: u32,
        /// Path below the mount point of cgroup2.
        pub path: &'a [u8],
    }

    /// Lanes over RDMA.
    pub struct Rdma<'a> {
        /// Try it with peers that try it too.
        pub wanted: bool,
        /// Name of the device; empty = the first with an active port.
        pub device: &'a [u8],
        /// Number of its port.
        pub port: u8,
    }

    /// End of a plan.
    pub struct PlanEnd {
        /// Grows with every plan; shown in the node's statistics.
        pub generation: u64,
    }
}

/// [`Transport::congestion`]: bbr first, cubic while nothing gets lost.
pub const CONGESTION_AUTO: u8 = 4;
/// Most bytes of an envelope's body.
pub const ENVELOPE_MAX: usize = 32 * 1024;

/// Reads the length of an envelope: `u32` length, then that many bytes of one message.
///
/// # Errors
/// [`CodecError::TooLarge`] above [`ENVELOPE_MAX`], [`CodecError::Truncated`] with fewer than four bytes.
pub fn envelope(bytes: &[u8]) -> Result<usize, CodecError> {
    let length = Reader::new(bytes).u32()?;
    if length as usize > ENVELOPE_MAX {
        return Err(CodecError::TooLarge {
            field: "envelope",
            value: u64::from(length),
            max: ENVELOPE_MAX as u64,
        });
    }
    Ok(length as usize)
}

/// Walks a list of byte strings, each behind a `u16` length.
pub fn strings(list: &[u8]) -> impl Iterator<Item = Result<&[u8], CodecError>> {
    let mut reader = Reader::new(list);
    core::iter::from_fn(move || {
        if reader.remaining() == 0 {
            return None;
        }
        let item = <&[u8]>::read(&mut reader);
        if item.is_err() {
            reader = Reader::new(&[]);
        }
        Some(item)
    })
}
