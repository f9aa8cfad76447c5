//! Pins every layout, identifier and message that control and dataplane share to the files in `golden/`. A change
//! there is a new version: raise `SHM_VERSION` or `LINK_VERSION`, then rewrite the files with
//! `DWCP_BLESS=1 cargo test -p dwcp-abi --test golden` and read the difference.
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use dwcp_abi::codec::Encoded;
use dwcp_abi::disk::*;
use dwcp_abi::link::{self, *};
use dwcp_abi::shm::*;
use dwcp_abi::wire::*;

fn demand(name: &str, rendered: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("DWCP_BLESS").is_some() {
        std::fs::write(&path, rendered).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(golden, rendered, "\n{name} differs: raise the version, then see the top of this file");
}

#[test]
fn regions() {
    let mut text = format!("version {SHM_VERSION}\nmagic {REGION_MAGIC:#018x}\n");
    for (name, kind) in [("worker", RegionKind::Worker(2)), ("node", RegionKind::Node)] {
        writeln!(text, "\n{name} region, {} bytes", kind.region_bytes()).unwrap();
        for section in kind.sections() {
            writeln!(text, "{:7} {:7} {}", section.offset_bytes, section.length_bytes, section.name).unwrap();
        }
        let words: Vec<_> = (0..kind.region_bytes() / 8).map(|_| AtomicU64::new(0)).collect();
        write_header(&words, kind, 0x1122_3344_5566_7788).unwrap();
        text += &dump(&words);
    }
    demand("regions.txt", &text);
}

#[test]
fn ring() {
    let mut text = format!(
        "commands {COMMAND_RING_BYTES}\nevents {EVENT_RING_BYTES}\nheader {RING_HEADER_BYTES}\n\
         record at most {RECORD_BYTES_MAX}\ntail {RING_TAIL_WORD}\nhead {RING_HEAD_WORD}\n\
         sleeping {RING_SLEEPING_WORD}\n"
    );
    let words: Vec<_> = (0..RING_HEADER_BYTES / 8 + 8).map(|_| AtomicU64::new(0)).collect();
    let mut producer = Producer::attach(&words[..]).unwrap();
    let mut consumer = Consumer::attach(&words[..]).unwrap();
    for record in [&b"first"[..], b"the second"] {
        producer.push(record).unwrap();
    }
    consumer.pop(&mut [0; 56]).unwrap();
    producer.push(b"third wraps around").unwrap();
    words[RING_SLEEPING_WORD].store(1, Ordering::Relaxed);
    text += &dump(&words);
    demand("ring.txt", &text);
}

#[test]
fn worker_statistics() {
    let mut text = format!("page {WORKER_PAGE_BYTES}\ncounters at most {WORKER_COUNTERS_MAX}\n");
    for counter in WorkerCounter::ALL {
        writeln!(text, "{:2} {:?} {}", counter.index(), counter.kind(), counter.name()).unwrap();
    }
    writeln!(text, "latency bounds in us {LATENCY_BOUNDS_US:?}").unwrap();
    let words: Vec<_> = (0..WORKER_PAGE_BYTES / 8).map(|_| AtomicU64::new(0)).collect();
    let mut figures = WorkerFigures::default();
    WorkerCounter::ALL.iter().for_each(|counter| figures.set(*counter, 0x100 + counter.index() as u64));
    LATENCY_BOUNDS_US.iter().for_each(|bound| figures.observe_send_latency_ns(bound * 1_000));
    figures.observe_send_latency_ns(11_000_000_000);
    WorkerStatsWriter::attach(&words[..]).publish(&figures);
    text += &dump(&words);
    demand("worker_statistics.txt", &text);
}

#[test]
fn timed_chunks() {
    let mut text = format!("page {TRACES_PAGE_BYTES}\nsent {SENT_STAGES:?}\nreceived {RECEIVED_STAGES:?}\n");
    let words: Vec<_> = (0..TRACES_PAGE_BYTES / 8).map(|_| AtomicU64::new(0)).collect();
    let mut figures = TraceFigures::default();
    figures.add(&TraceRecord {
        received: true,
        foreign: true,
        peer_crc: 1,
        job: 2,
        ended_ns: 3,
        bytes: 4,
        stages_ns: [5, 6, 7, 8, 9, 10, 11],
    });
    TracesWriter::attach(&words[..]).publish(&figures);
    text += &dump(&words);
    demand("timed_chunks.txt", &text);
}

#[test]
fn node_statistics() {
    use dwcp_abi::bpf::{Class, Counter, Direction};
    let mut text = format!("page {NODE_PAGE_BYTES}\ncounters at most {NODE_COUNTERS_MAX}\n");
    for counter in NodeCounter::ALL {
        writeln!(text, "{:2} {:?} {}", counter.index(), counter.kind(), counter.name()).unwrap();
    }
    for program in ProgramFlag::ALL {
        writeln!(text, "program {:#x} {}", program.bit(), program.name()).unwrap();
    }
    let words: Vec<_> = (0..NODE_PAGE_BYTES / 8).map(|_| AtomicU64::new(0)).collect();
    let mut figures = NodeFigures::default();
    NodeCounter::ALL.iter().for_each(|counter| figures.set(*counter, 0x100 + counter.index() as u64));
    for core in [0, 1, FLOW_CORES_MAX - 1] {
        for direction in Direction::ALL {
            for class in Class::ALL {
                let packets = (core as u64) << 16 | (direction as u64) << 8 | u64::from(class.number());
                figures.set_flow(core, direction, class, Counter { packets, bytes: packets | 1 << 32 });
            }
        }
    }
    NodeStatsWriter::attach(&words[..]).publish(&figures);
    text += &dump(&words);
    writeln!(text, "\nfeatures page {FEATURES_PAGE_BYTES}").unwrap();
    let words: Vec<_> = (0..FEATURES_PAGE_BYTES / 8).map(|_| AtomicU64::new(0)).collect();
    FeaturesWriter::attach(&words[..]).publish("io_uring\ton\t\nhugepages\toff\tnone reserved\n");
    text += &dump(&words);
    demand("node_statistics.txt", &text);
}

#[test]
fn flows() {
    let mut text = format!("flows page {FLOWS_PAGE_BYTES}, at most {FLOWS_SHOWN_MAX}\n");
    let words: Vec<_> = (0..FLOWS_PAGE_BYTES / 8).map(|_| AtomicU64::new(0)).collect();
    let record = |number: u32| FlowRecord {
        key: std::array::from_fn(|index| number << 16 | index as u32).into(),
        flow: std::array::from_fn(|index| u64::from(number) << 32 | index as u64).into(),
        bytes_per_s: 0x7172_7374_7576_7778,
    };
    FlowsWriter::attach(&words[..]).publish([1, 2].into_iter().map(record), 3, 4);
    text += &dump(&words);
    demand("flows.txt", &text);
}

#[test]
fn commands() {
    let options = JobOptions { streams: 0x0102, tree: TreeOptions::SKIP_UNCHANGED };
    let (job, attempt, peer) = (0x1112_1314_1516_1718, 0x2122_2324, &b"peer"[..]);
    let (destination, sources) = (&b"/d"[..], &b"\x02\0/a\x03\0/bc"[..]);
    let filters = &b"\x02\x03\0*.o"[..];
    let all = [
        Command::Send(SendJob { job, attempt, peer, destination, options, filters, sources }),
        Command::Fetch(FetchJob { job, attempt, peer, destination, options, filters, sources }),
        Command::Cancel(CancelJob { job }),
        Command::Forget(ForgetJob { job }),
        Command::Snapshot(Snapshot { token: 0x3132_3334_3536_3738 }),
        Command::Ping(link::Ping { token: 0x4142_4344_4546_4748, peer }),
        Command::Pause(PauseJob { job }),
    ];
    let mut text = format!("version {LINK_VERSION}\n");
    for command in all {
        // Exhaustive, so that a new message cannot be left out.
        let name = match command {
            Command::Send(_) => "Send",
            Command::Fetch(_) => "Fetch",
            Command::Cancel(_) => "Cancel",
            Command::Forget(_) => "Forget",
            Command::Snapshot(_) => "Snapshot",
            Command::Ping(_) => "Ping",
            Command::Pause(_) => "Pause",
        };
        writeln!(text, "{name} {}", hex(&command)).unwrap();
    }
    demand("commands.txt", &text);
}

#[test]
fn events() {
    let counts = Counts {
        entries_done: 1,
        entries_total: 2,
        bytes_done: 3,
        bytes_total: 4,
        bytes_wire: 5,
        bytes_resent: 6,
        bytes_resumed: 8,
        failures: 7,
    };
    let (job, attempt, lanes, text) = (0x1112_1314_1516_1718, 0x2122_2324, 0x3132, &b"why"[..]);
    let (state, outcome) = (JobState::Running, Outcome::Partial);
    let all = [
        Event::Progress(JobProgress { job, attempt, state, scanned: true, lanes, counts }),
        Event::Finished(JobFinished {
            job,
            attempt,
            outcome,
            lanes,
            counts,
            elapsed_ns: 0x4142_4344_4546_4748,
            text,
            changes: b"c",
        }),
        Event::Lane(LaneChange { peer: b"peer", up: true, lanes, encrypted: false, text }),
        Event::SnapshotEnd(SnapshotEnd { token: 0x5152_5354_5556_5758 }),
        Event::RingReset(RingReset { count: 0x6162_6364_6566_6768 }),
        Event::Path(PathFigures {
            peer: b"peer",
            internet: true,
            limit: PathLimit::Queue,
            rtt_us: 0x7172_7374,
            rtt_min_us: 0x7576_7778,
            resent_millionths: 0x7900_0001,
            delivered_bytes_per_s: 0x8182_8384_8586_8788,
            ceiling_bytes_per_s: 0x9192_9394_9596_9798,
            busy: 0xa1a2,
            transitions: 0xb1b2_b3b4,
        }),
        Event::Tunnel(TunnelFigures {
            listen: b"127.0.0.1:1",
            peer: b"peer",
            target: b"db:5432",
            state: TunnelState::Failed,
            open: 0x0102_0304,
            opened: 0x1112_1314_1516_1718,
            refused: 0x2122_2324_2526_2728,
            bytes_sent: 0x3132_3334_3536_3738,
            bytes_received: 0x4142_4344_4546_4748,
            text,
        }),
        Event::TunnelPeer(TunnelPeerFigures {
            peer: b"peer",
            lanes: 0x0102,
            rtt_us: 0x1112_1314,
            accepted_open: 0x2122_2324,
            accepted: 0x3132_3334_3536_3738,
            refused: 0x4142_4344_4546_4748,
            bytes_sent: 0x5152_5354_5556_5758,
            bytes_received: 0x6162_6364_6566_6768,
            lanes_lost: 0x7172_7374_7576_7778,
        }),
        Event::Pong(Pong { token: 0x0102_0304_0506_0708, rtt_ns: 0x1112_1314_1516_1718, text }),
    ];
    let mut rendered = format!("version {LINK_VERSION}\n");
    for event in all {
        // Exhaustive, so that a new message cannot be left out.
        let name = match event {
            Event::Progress(_) => "Progress",
            Event::Finished(_) => "Finished",
            Event::Lane(_) => "Lane",
            Event::SnapshotEnd(_) => "SnapshotEnd",
            Event::RingReset(_) => "RingReset",
            Event::Path(_) => "Path",
            Event::Tunnel(_) => "Tunnel",
            Event::TunnelPeer(_) => "TunnelPeer",
            Event::Pong(_) => "Pong",
        };
        writeln!(rendered, "{name} {}", hex(&event)).unwrap();
    }
    JobState::ALL.iter().for_each(|state| writeln!(rendered, "{state:?} {}", hex(state)).unwrap());
    PathLimit::ALL.iter().for_each(|limit| writeln!(rendered, "{limit:?} {}", hex(limit)).unwrap());
    TunnelState::ALL.iter().for_each(|state| writeln!(rendered, "{state:?} {}", hex(state)).unwrap());
    Outcome::ALL.iter().for_each(|outcome| writeln!(rendered, "{outcome:?} {}", hex(outcome)).unwrap());
    demand("events.txt", &rendered);
}

#[test]
fn setup() {
    let fingerprint: [u8; 32] = std::array::from_fn(|index| 0xa0 + index as u8);
    let transport = Transport {
        min_streams: 0x0102,
        initial_streams: 0x0304,
        max_streams: 0x0506,
        encrypt: true,
        congestion: 1,
        send_buffer_size: 0x1112_1314,
        recv_buffer_size: 0x2122_2324,
        pacing_bytes_per_s: 0x3132_3334_3536_3738,
        connect_timeout_ms: 0x4142_4344,
        read_timeout_ms: 0x5152_5354,
        write_timeout_ms: 0x5556_5758,
        codec: 3,
        codec_level: 9,
        codec_adaptive: true,
        codec_ratio_min_thousandths: 0x6162,
        deltas: true,
        baseline_store_bytes: 0x7172_7374_7576_7778,
    };
    let attach = Attach {
        version: 0x6162_6364,
        workers: 0x0102,
        cores: &[3, 0],
        backend: 2,
        hugepages: true,
        buffer_bytes: 0x1112_1314_1516_1718,
        listen: b"[::]:9000",
    };
    let export = Export {
        name: b"data",
        path: b"/srv",
        access: Access::ReadWrite,
        peers: b"\x01\0p",
        privileged: true,
    };
    let all = [
        Setup::Attach(attach),
        Setup::Transport(transport),
        Setup::Peer(Peer {
            name: b"peer",
            fingerprint,
            address: b"host:9000",
            pacing_bytes_per_s: 0x8182_8384_8586_8788,
        }),
        Setup::Export(export),
        Setup::Tunnel(Tunnel { listen: b"127.0.0.1:1", peer: b"peer", target: b"db:5432" }),
        Setup::TunnelAllow(TunnelAllow { peer: b"peer", host: b"db", port_first: 0x0102, port_last: 0x0304 }),
        Setup::PlanEnd(PlanEnd { generation: 0x7172_7374_7576_7778 }),
        Setup::Kernel(Kernel {
            enabled: true,
            cgroup: b"dwcp.slice",
            guard: GuardMode::Force,
            guard_source_per_s: 0x0102_0304,
            guard_total_per_s: 0x0506_0708,
        }),
        Setup::Class(link::Class {
            class: 2,
            flow_bytes_per_s: 0x1112_1314_1516_1718,
            peer_bytes_per_s: 0x2122_2324_2526_2728,
            congestion: 3,
            priority: 7,
        }),
        Setup::Selector(Selector {
            class: 4,
            kind: SelectorKind::Connection,
            protocol: 6,
            local_port: 0x3132,
            remote_port: 0x4142,
            local: std::array::from_fn(|index| index as u8),
            remote: std::array::from_fn(|index| 0xa0 + index as u8),
            value: 0x5152_5354,
            path: b"a/b",
        }),
        Setup::Rdma(Rdma { wanted: true, device: b"mlx5_0", port: 2 }),
    ];
    let mut text = format!("version {LINK_VERSION}\nenvelope at most {ENVELOPE_MAX}\n");
    for message in all {
        // Exhaustive, so that a new message cannot be left out.
        let name = match message {
            Setup::Attach(_) => "Attach",
            Setup::Transport(_) => "Transport",
            Setup::Peer(_) => "Peer",
            Setup::Export(_) => "Export",
            Setup::Tunnel(_) => "Tunnel",
            Setup::TunnelAllow(_) => "TunnelAllow",
            Setup::PlanEnd(_) => "PlanEnd",
            Setup::Kernel(_) => "Kernel",
            Setup::Class(_) => "Class",
            Setup::Selector(_) => "Selector",
            Setup::Rdma(_) => "Rdma",
        };
        writeln!(text, "{name} {}", hex(&message)).unwrap();
    }
    let (instance, pid) = (0x8182_8384_8586_8788, 0x9192_9394);
    let attached = Attached { version: 0x6162_6364, workers: 0x0708, instance, pid, fingerprint };
    writeln!(text, "Attached {}", hex(&attached)).unwrap();
    GuardMode::ALL.iter().for_each(|mode| writeln!(text, "{mode:?} {}", hex(mode)).unwrap());
    SelectorKind::ALL.iter().for_each(|kind| writeln!(text, "{kind:?} {}", hex(kind)).unwrap());
    Access::ALL.iter().for_each(|access| writeln!(text, "{access:?} {}", hex(access)).unwrap());
    demand("setup.txt", &text);
}

#[test]
fn tunnel_frames() {
    use dwcp_abi::wire::*;
    let (connection, offset) = (0x1112_1314, 0x2122_2324_2526_2728);
    let mut text = format!(
        "header {TUNNEL_HEADER_BYTES}\npayload at most {TUNNEL_PAYLOAD_MAX}\nfirst window {TUNNEL_WINDOW_FIRST}\n\
         target at most {TUNNEL_TARGET_MAX}\ntext at most {TUNNEL_TEXT_MAX}\nfeature {}\n",
        hello::FEATURE_TUNNEL
    );
    for kind in TunnelKind::ALL {
        let mut bytes = [0; 256];
        // Exhaustive, so that a new frame cannot be left out.
        let length = match kind {
            TunnelKind::Open => {
                let open = TunnelOpen { credit: 0x3132_3334_3536_3738, target: b"db:5432" };
                tunnel_frame(*kind, TUNNEL_FLAG_OPENER, connection, 0, &open, &mut bytes)
            }
            TunnelKind::Data => {
                bytes[TUNNEL_HEADER_BYTES..][..5].copy_from_slice(b"bytes");
                let flags = TUNNEL_FLAG_BLOCKED | TUNNEL_FLAG_CODED;
                tunnel_seal(*kind, flags, connection, offset, 5, &mut bytes)
            }
            TunnelKind::Accept | TunnelKind::Fin | TunnelKind::Ping | TunnelKind::Pong => {
                tunnel_seal(*kind, 0, connection, offset, 0, &mut bytes)
            }
            TunnelKind::Ack => {
                let ack = TunnelAck { credit: 0x4142_4344_4546_4748 };
                tunnel_frame(*kind, 0, connection, offset, &ack, &mut bytes)
            }
            TunnelKind::Reset => {
                let reset = TunnelReset { code: Code::Cancelled, text: b"why" };
                tunnel_frame(*kind, 0, connection, 0, &reset, &mut bytes)
            }
        };
        write!(text, "{kind:?} ").unwrap();
        bytes[..length.unwrap()].iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
        text.push('\n');
    }
    demand("tunnel_frames.txt", &text);
}

#[test]
fn sealed_files() {
    let header = SealedHeader { iterations: 600_000, salt: *b"0123456789abcdef" };
    let mut text = format!("segment {SEALED_SEGMENT_BYTES}\ntag {SEALED_TAG_BYTES}\n");
    for line in header.to_bytes().chunks(16) {
        let bytes: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{}", bytes.join(" ")).unwrap();
    }
    demand("sealed_files.txt", &text);
}

#[test]
fn partial_files() {
    let (boot, path) =
        (std::array::from_fn(|index| index as u8), std::array::from_fn(|index| 0xa0 + index as u8));
    let header = PartialHeader { boot, path, size: 0x0100_0203, mtime_s: -2, mtime_ns: 0x1112_1314 };
    let mut text = format!("version {PARTIAL_VERSION}\nwritten {CHUNK_WRITTEN}\n");
    for byte in header.to_bytes() {
        write!(text, "{byte:02x}").unwrap();
    }
    let layout = PartialLayout::of(header.size).unwrap();
    writeln!(text, "\nchunks {}\nheader {}", layout.chunks, layout.header_at).unwrap();
    writeln!(text, "written {}\nsynced {}\nend {}", layout.written_at, layout.synced_at, layout.end).unwrap();
    demand("partial_files.txt", &text);
}

fn hex<'a>(value: &impl Encoded<'a>) -> String {
    let mut bytes = [0; 1024];
    let length = value.encode(&mut bytes).unwrap();
    bytes[..length].iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Every word that is not zero, with its byte offset.
fn dump(words: &[AtomicU64]) -> String {
    let mut text = String::new();
    for (index, word) in words.iter().enumerate() {
        let value = word.load(Ordering::Relaxed);
        if value != 0 {
            writeln!(text, "{:6} {value:016x}", index * 8).unwrap();
        }
    }
    text
}

#[test]
fn clusters() {
    let node = ReplicatedNode { signing: [1; 32], random: [2; 32], about: b"about" };
    let protocol = ReplicatedProtocol { protocol: 2, positions: 1000, seats: 10 };
    let put = ReplicatedPut { key: b"key", value: b"value", expected: u64::MAX };
    let mut text = String::new();
    let mut line = |name: &str, bytes: &[u8]| {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{name} {digits}").unwrap();
    };
    let mut bytes = [0; 512];
    for command in [
        ReplicatedCommand::Pass(0),
        ReplicatedCommand::Put(put),
        ReplicatedCommand::Delete(b"key"),
        ReplicatedCommand::Admit(node),
        ReplicatedCommand::Remove(3),
        ReplicatedCommand::Protocol(protocol),
    ] {
        let length = command.encode(&mut bytes).unwrap();
        assert_eq!(ReplicatedCommand::decode(&bytes[..length]), Ok(command));
        line("command", &bytes[..length]);
    }
    for fact in [
        ReplicatedFact::Protocol(protocol),
        ReplicatedFact::Seat(ReplicatedSeat { replica: 3, node }),
        ReplicatedFact::Value(ReplicatedValue { key: b"key", version: 7, value: b"value" }),
    ] {
        let length = fact.encode(&mut bytes).unwrap();
        assert_eq!(ReplicatedFact::decode(&bytes[..length]), Ok(fact));
        line("fact", &bytes[..length]);
    }
    let about =
        ClusterAbout { fingerprint: [3; 32], name: b"paris", address: b"10.0.0.1:6000", region: b"eu" };
    let length = about.encode(&mut bytes).unwrap();
    line("about", &bytes[..length]);
    let join = ClusterJoin { secret: [4; 16], signing: [5; 32], random: [6; 32], about: b"about" };
    let length = join.encode(&mut bytes).unwrap();
    line("join", &bytes[..length]);
    let length = ClusterAdmitted { cluster: [7; 32], replica: 4 }.encode(&mut bytes).unwrap();
    line("admitted", &bytes[..length]);
    for kind in ClusterFrameKind::ALL {
        let header = cluster_frame_header(*kind, 0x1234).unwrap();
        assert_eq!(read_cluster_frame_header(&header), Ok((*kind, 0x1234)));
        line("frame", &header);
    }
    assert!(cluster_frame_header(ClusterFrameKind::Message, CLUSTER_FRAME_BYTES_MAX + 1).is_err());
    assert!(read_cluster_frame_header(&[0xff; 8]).is_err());
    demand("cluster.txt", &text);
}
