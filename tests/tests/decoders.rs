//! Every decoder of the wire and of the link against mutated bytes: none panics, and what one of them accepts can be
//! written and read again as the same value. `DWCP_DECODER_ROUNDS` asks for more than an ordinary run.
use dwcp_abi::codec::{Encoded, Reader};
use dwcp_abi::disk::{CHUNK_WRITTEN, PARTIAL_HEADER_BYTES, PartialHeader, PartialLayout, written_runs};
use dwcp_abi::link::{
    Access, Attach, Attached, CancelJob, Class, Command, Counts, Event, Export, FetchJob, ForgetJob,
    GuardMode, JobFinished, JobOptions, JobProgress, JobState, Kernel, LaneChange, Outcome, PathFigures,
    PathLimit, Peer, PlanEnd, Rdma, RingReset, Selector, SelectorKind, SendJob, Setup, Snapshot, SnapshotEnd,
    Transport, envelope, strings,
};
use dwcp_abi::wire::hello::{Greeting, Hello, Refuse, VersionRange, Welcome};
use dwcp_abi::wire::{
    Ack, Attribute, BlockHeader, Change, ChangedName, ChunkHead, ChunkRanges, Close, Code, Codec,
    ContentDigest, ContentId, DELTA_HEAD_BYTES, DeltaHead, DeltaKind, Entry, EntryHeader, EntryKind, Extra,
    FLAG_EXTRA, FetchRequest, FilterAction, FilterRule, FrameHeader, FrameKind, Held, JobAbort, JobAccept,
    JobChanges, JobDone, JobEnd, JobOpen, Node, NodeKind, ObjectDone, ObjectEnd, ObjectOpened, ObjectPlain,
    OwnerName, Pack, PackHead, Ping, Recipe, TreeOptions, check_name, extras, open_pack,
};
use dwcp_tests::sim::Rng;

fn rounds() -> u64 {
    std::env::var("DWCP_DECODER_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3000)
}

/// Bytes that are a little wrong.
fn mutate(rng: &mut Rng, sample: &[u8]) -> Vec<u8> {
    let mut bytes = sample.to_vec();
    for _ in 0..rng.between(1, 4) {
        let at = rng.below(bytes.len() as u64 + 1) as usize;
        match rng.below(7) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, rng.next_u64() as u8),
            2 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            3 if at < bytes.len() => bytes[at] = rng.pick(&[0, 1, 0x7f, 0x80, 0xff]),
            4 if at + 4 <= bytes.len() => {
                let value = rng.pick(&[0u32, 1, 0xffff, 0x7fff_ffff, u32::MAX]);
                bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            }
            5 if !bytes.is_empty() => {
                let from = rng.below(bytes.len() as u64) as usize;
                let part = bytes[from..].to_vec();
                bytes.splice(at..at, part);
            }
            _ => rng.fill(&mut bytes[at..]),
        }
        bytes.truncate(64 << 10);
    }
    bytes
}

fn encoded<'a>(value: &impl Encoded<'a>) -> Vec<u8> {
    let mut bytes = vec![0; 64 << 10];
    let length = value.encode(&mut bytes).expect("a sample fits");
    bytes.truncate(length);
    bytes
}

/// What a decoder accepts is a value: written and read again it is the same.
macro_rules! attack {
    ($rng:expr, $($type:ty: $sample:expr),* $(,)?) => {$({
        let sample = encoded(&$sample);
        assert_eq!(encoded(&<$type>::decode(&sample).expect("a sample can be read")), sample);
        for _ in 0..rounds() {
            let bytes = mutate($rng, &sample);
            if let Ok(value) = <$type>::decode(&bytes) {
                let again = encoded(&value);
                let value_again = <$type>::decode(&again).expect("what was written can be read");
                assert_eq!(format!("{value:?}"), format!("{value_again:?}"));
            }
        }
    })*};
}

#[test]
fn frames_of_the_wire() {
    let mut rng = Rng::new(1);
    let mut ack = Ack::new(77);
    [1, 2, 9, 12].iter().for_each(|&sequence| assert!(ack.add(sequence)));
    let (code, text, digest) = (Code::Io, &b"why"[..], [3; 32]);
    let head = ChunkHead { object: 1, offset: 2, length: 3, codec: Codec::Raw, reserved: [0; 3], attempt: 4 };
    attack!(&mut rng,
        Ack: ack,
        ChunkHead: head,
        PackHead: PackHead { number: 1, attempt: 2, reserved: 0 },
        JobOpen<'_>: JobOpen { attempt: 1, options: TreeOptions::SKIP_UNCHANGED, baselines: true, packs: 0, destination: b"/there", filters: b"\x02\x01\0*" },
        FetchRequest<'_>: FetchRequest { attempt: 1, options: TreeOptions::NONE, sources: b"\x02\0/a", filters: b"\x02\x01\0*" },
        FilterRule<'_>: FilterRule { action: FilterAction::Exclude, pattern: b"*.o" },
        JobAccept: JobAccept { question: true },
        ObjectOpened: ObjectOpened {
            object: 5,
            held: true,
            chunks: ChunkRanges::of_bytes([(0, 1 << 20), (4 << 20, 9 << 20)], 1 << 30),
            baseline: Held { content: ContentId([6; 16]), length: 7 },
        },
        ObjectPlain: ObjectPlain { object: 5, chunks: ChunkRanges::of_bytes([(0, 1 << 20)], 1 << 30) },
        ObjectEnd: ObjectEnd { object: 5, size: 6, digest },
        ObjectDone<'_>: ObjectDone { object: 5, code, text },
        JobEnd: JobEnd { packs: 1, entries: 2, objects: 3 },
        JobDone<'_>: JobDone { failures: 1, text, changes: b"c" },
        JobChanges<'_>: JobChanges { created: 1, replaced: 2, bytes: 3, deleted: 4, names: b"\x03\x01\0a", notes: text },
        ChangedName<'_>: ChangedName { change: Change::Deleted, name: b"a/b" },
        Extra<'_>: Extra::Digest(ContentDigest { digest }),
        Extra<'_>: Extra::Attribute(Attribute { name: b"user.a", value: b"v" }),
        Extra<'_>: Extra::User(OwnerName { name: b"daemon" }),
        Extra<'_>: Extra::Node(Node { kind: NodeKind::Block, major: 8, minor: 1 }),
        JobAbort<'_>: JobAbort { code, text },
        Ping: Ping { token: 9 },
        Close<'_>: Close { code, text },
    );
}

#[test]
fn messages_of_the_link() {
    let mut rng = Rng::new(2);
    let (peer, sources, text) = (&b"peer"[..], &b"\x02\0/a"[..], &b"why"[..]);
    let options = JobOptions { streams: 4, tree: TreeOptions::SKIP_UNCHANGED };
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
    let filters = &b"\x02\x01\0*"[..];
    let send = SendJob { job: 1, attempt: 1, peer, destination: b"/d", options, filters, sources };
    let fetch = FetchJob { job: 1, attempt: 1, peer, destination: b"/d", options, filters, sources };
    let progress =
        JobProgress { job: 1, attempt: 1, state: JobState::Running, scanned: true, lanes: 3, counts };
    let finished = JobFinished {
        job: 1,
        attempt: 1,
        outcome: Outcome::Partial,
        lanes: 3,
        counts,
        elapsed_ns: 9,
        text,
        changes: b"c",
    };
    attack!(&mut rng,
        Command<'_>: Command::Send(send),
        Command<'_>: Command::Fetch(fetch),
        Command<'_>: Command::Cancel(CancelJob { job: 1 }),
        Command<'_>: Command::Forget(ForgetJob { job: 1 }),
        Command<'_>: Command::Snapshot(Snapshot { token: 1 }),
        Command<'_>: Command::Pause(dwcp_abi::link::PauseJob { job: 1 }),
        Command<'_>: Command::Ping(dwcp_abi::link::Ping { token: 1, peer }),
        Event<'_>: Event::Progress(progress),
        Event<'_>: Event::Finished(finished),
        Event<'_>: Event::Lane(LaneChange { peer, up: true, lanes: 3, encrypted: true, text }),
        Event<'_>: Event::SnapshotEnd(SnapshotEnd { token: 1 }),
        Event<'_>: Event::RingReset(RingReset { count: 1 }),
        Event<'_>: Event::Path(PathFigures {
            peer,
            internet: true,
            limit: PathLimit::Room,
            rtt_us: 1,
            rtt_min_us: 1,
            resent_millionths: 1,
            delivered_bytes_per_s: 1,
            ceiling_bytes_per_s: 1,
            busy: 1,
            transitions: 1,
        }),
        Event<'_>: Event::Pong(dwcp_abi::link::Pong { token: 1, rtt_ns: 2, text }),
        Event<'_>: Event::Tunnel(dwcp_abi::link::TunnelFigures {
            listen: b"127.0.0.1:1",
            peer,
            target: b"db:5432",
            state: dwcp_abi::link::TunnelState::Failed,
            open: 1,
            opened: 2,
            refused: 3,
            bytes_sent: 4,
            bytes_received: 5,
            text,
        }),
    );
}

#[test]
fn messages_of_the_set_up() {
    let mut rng = Rng::new(3);
    let transport = Transport {
        min_streams: 1,
        initial_streams: 2,
        max_streams: 3,
        encrypt: true,
        congestion: 1,
        send_buffer_size: 4,
        recv_buffer_size: 5,
        pacing_bytes_per_s: 6,
        connect_timeout_ms: 7,
        read_timeout_ms: 8,
        write_timeout_ms: 9,
        codec: 3,
        codec_level: 1,
        codec_adaptive: false,
        codec_ratio_min_thousandths: 1050,
        deltas: true,
        baseline_store_bytes: 1 << 30,
    };
    let export =
        Export { name: b"e", path: b"/e", access: Access::ReadWrite, peers: b"\x01\0b", privileged: true };
    let peer = Peer { name: b"b", fingerprint: [1; 32], address: b"b:1", pacing_bytes_per_s: 7 };
    let attached = Attached { version: 1, workers: 2, instance: 3, pid: 4, fingerprint: [5; 32] };
    let attach = Attach {
        version: 1,
        workers: 2,
        cores: b"\x01\0\x02\0",
        backend: 1,
        hugepages: true,
        buffer_bytes: 3,
        listen: b":7433",
    };
    let kernel = Kernel {
        enabled: true,
        cgroup: b"a/b",
        guard: GuardMode::On,
        guard_source_per_s: 1,
        guard_total_per_s: 2,
    };
    let class = Class { class: 1, flow_bytes_per_s: 2, peer_bytes_per_s: 3, congestion: 1, priority: 4 };
    let selector = Selector {
        class: 1,
        kind: SelectorKind::Cgroup,
        protocol: 6,
        local_port: 2,
        remote_port: 3,
        local: [4; 16],
        remote: [5; 16],
        value: 6,
        path: b"c/d",
    };
    attack!(&mut rng,
        Setup<'_>: Setup::Kernel(kernel),
        Setup<'_>: Setup::Class(class),
        Setup<'_>: Setup::Selector(selector),
        Setup<'_>: Setup::Rdma(Rdma { wanted: true, device: b"mlx5_0", port: 1 }),
        Setup<'_>: Setup::Attach(attach),
        Setup<'_>: Setup::Transport(transport),
        Setup<'_>: Setup::Peer(peer),
        Setup<'_>: Setup::Export(export),
        Setup<'_>: Setup::PlanEnd(PlanEnd { generation: 1 }),
        Attached: attached,
    );
}

#[test]
fn greetings() {
    let mut rng = Rng::new(4);
    let versions = VersionRange { min: 1, max: 2 };
    let (features, instance, clear) = (1, 2, true);
    let (chunk_length_max, credit_bytes) = (3, 4);
    let samples = [
        Greeting::Hello(Hello {
            versions,
            features,
            instance,
            token: 9,
            clear,
            chunk_length_max,
            credit_bytes,
        }),
        Greeting::Welcome(Welcome { version: 1, features, instance, clear, chunk_length_max, credit_bytes }),
        Greeting::Refuse(Refuse { code: 1, versions, text: b"why" }),
    ];
    for sample in samples {
        let mut bytes = vec![0; 2048];
        let length = sample.encode_framed(&mut bytes).expect("a sample fits");
        bytes.truncate(length);
        for _ in 0..rounds() {
            let bytes = mutate(&mut rng, &bytes);
            if let Ok(Some((_, taken))) = Greeting::decode_framed(&bytes) {
                assert!(taken <= bytes.len(), "a greeting has more bytes than there are");
            }
        }
    }
}

#[test]
fn headers_envelopes_and_lists() {
    let mut rng = Rng::new(5);
    let header =
        FrameHeader { kind: FrameKind::Chunk, flags: 1, length: 9, job: 8, sequence: 7, payload_crc: 6 };
    let delta = DeltaHead { kind: DeltaKind::Exact, segments: 3, lengths: [3, 3, 3, 9, 9, 50, 70] };
    let recipe = [&[7; 16][..], &[30, 0, 0, 0, 0, 0, 0, 0], &[2, 0, 0, 0]].concat();
    let recipe = [&recipe[..], &[1; 16], &[10, 0, 0, 0], &[2; 16], &[20, 0, 0, 0]].concat();
    let list = b"\x03\0abc\0\0\x01\0z";
    for _ in 0..10 * rounds() {
        let bytes = mutate(&mut rng, &header.to_bytes());
        if let Some(head) = bytes.first_chunk()
            && let Ok(read) = FrameHeader::from_bytes(head)
        {
            assert_eq!(&read.to_bytes(), head);
        }
        if let Some(head) = bytes.first_chunk()
            && let Ok(read) = BlockHeader::from_bytes(head)
        {
            assert_eq!(&read.to_bytes(), head);
        }
        let bytes = mutate(&mut rng, &delta.to_bytes());
        if let Ok(read) = DeltaHead::read(&mut Reader::new(&bytes), 1 << 20) {
            assert_eq!(read.to_bytes(), bytes[..DELTA_HEAD_BYTES]);
        }
        let bytes = mutate(&mut rng, &recipe);
        if let Ok(read) = Recipe::read(&bytes) {
            assert_eq!(read.chunks().count(), read.head().chunks as usize);
        }
        let bytes = mutate(&mut rng, list);
        let whole: usize = strings(&bytes).filter_map(Result::ok).map(<[u8]>::len).sum();
        assert!(whole <= bytes.len(), "a list has more bytes than there are");
        if let Ok(length) = envelope(&bytes) {
            assert!(length <= dwcp_abi::link::ENVELOPE_MAX);
        }
    }
}

#[test]
fn packs() {
    let mut rng = Rng::new(6);
    let header = |kind, name: &[u8], size| EntryHeader {
        kind,
        flags: 0,
        name_length: name.len() as u16,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime_s: 1,
        mtime_ns: 2,
        size,
        object: u64::from(kind == EntryKind::Object),
    };
    let entry = |kind, name: &'static [u8], content: &'static [u8], size| Entry {
        header: header(kind, name, size),
        name,
        extra: b"",
        content,
    };
    let mut pack = vec![7; 32];
    for sample in [
        entry(EntryKind::Directory, b"d", b"", 0),
        entry(EntryKind::InlineFile, b"d/f", b"content", 7),
        entry(EntryKind::Object, b"d/o", b"", 1 << 20),
        entry(EntryKind::Symlink, b"d/l", b"../f", 4),
        entry(EntryKind::HardLink, b"d/h", b"d/f", 3),
        Entry {
            header: EntryHeader { flags: FLAG_EXTRA, ..header(EntryKind::Special, b"d/p", 0) },
            name: b"d/p",
            extra: b"\x05\x01\0\0\0\0\0\0\0\0",
            content: b"",
        },
        entry(EntryKind::Failed, b"x", b"why", 3),
    ] {
        pack.extend_from_slice(&encoded(&sample));
    }
    let (_, entries) = open_pack(&pack).expect("a pack has a digest");
    assert_eq!(Pack::new(entries).filter_map(Result::ok).count(), 7, "the sample is a pack");
    for _ in 0..5 * rounds() {
        let bytes = mutate(&mut rng, &pack);
        let Ok((_, entries)) = open_pack(&bytes) else { continue };
        for entry in Pack::new(entries).filter_map(Result::ok) {
            let is_root = entry.name.is_empty() && entry.header.kind == EntryKind::Directory;
            assert!(is_root || check_name(entry.name).is_ok(), "a pack hands out a name that escapes");
            let leads = entry.header.kind != EntryKind::HardLink || check_name(entry.content).is_ok();
            assert!(leads, "a pack hands out a hard link that escapes");
            assert!(extras(entry.extra).count() <= entry.extra.len(), "records that take no room");
            assert_eq!(Entry::decode(&encoded(&entry)).expect("what was written can be read"), entry);
        }
    }
}

#[test]
fn tails_of_partial_files() {
    let mut rng = Rng::new(7);
    let header = PartialHeader { boot: [1; 16], path: [2; 32], size: 3 << 20, mtime_s: 4, mtime_ns: 5 };
    let sample = [&header.to_bytes()[..], &[0, 1, 1, 0, 0, 1]].concat();
    for _ in 0..10 * rounds() {
        let bytes = mutate(&mut rng, &sample);
        let Some((head, map)) = bytes.split_first_chunk::<PARTIAL_HEADER_BYTES>() else { continue };
        if let Ok(read) = PartialHeader::from_bytes(head) {
            assert_eq!(&read.to_bytes(), head);
            assert!(PartialLayout::of(read.size).is_none_or(|layout| layout.end > read.size));
        }
        let covered: u64 = written_runs(map).map(|(start, end)| end - start).sum();
        assert_eq!(covered, map.iter().filter(|&&byte| byte == CHUNK_WRITTEN).count() as u64);
    }
}
