//! A peer that breaks every rule: the lane is closed and counted, the node lives, and others do not notice.
use std::fs;
use std::os::unix::fs::symlink;

use dwcp_abi::codec::Encoded;
use dwcp_abi::link::Outcome;
use dwcp_abi::shm::WorkerCounter as Counter;
use dwcp_abi::wire::{
    CHUNK_BYTES, ChunkHead, Codec, EARLY_PACKS_MAX, EntryHeader, EntryKind, FrameKind, JobEnd, ObjectDone,
    ObjectOpened, PackHead, PackWriter, checksum,
};
use dwcp_dataplane::door::Payload;
use tempfile::TempDir;

use crate::data::{assert_same, bytes, files, tree};
use crate::node::{CLEAR, Node, Shape, address};
use crate::stranger::{Line, Stranger, frame, header};

/// A stranger, its victim, and an honest node.
struct Scene {
    directory: TempDir,
    victim: Node,
    honest: Node,
    stranger: Stranger,
}

impl Scene {
    fn new(shape: Shape) -> Self {
        let directory = TempDir::new().unwrap();
        let listen = address();
        let mut honest = Node::start(&directory.path().join("a"), shape, "");
        let mut victim = Node::start(&directory.path().join("b"), shape, &listen);
        let stranger = Stranger::new();
        victim.transport.read_timeout_ms = 300;
        honest.know(&[victim.named("peer", &listen)]);
        victim.know(&[honest.named("peer", ""), stranger.named("")]);
        let payload = if shape.encrypt { Payload::Encrypted } else { Payload::ClearIfBoth };
        stranger.know(&victim, payload);
        Self { directory, victim, honest, stranger }
    }

    /// Says something on a lane of its own, which is then closed and counted.
    #[track_caller]
    fn offend(&mut self, counter: Counter, what: &str, say: impl FnOnce(&mut Line)) {
        let before = self.victim.counter(counter);
        let mut line = self.stranger.dial();
        say(&mut line);
        line.assert_closed(what);
        self.victim.until(what, |victim| victim.counter(counter) > before);
    }

    #[track_caller]
    fn assert_unharmed(mut self) {
        let source = self.directory.path().join("source");
        tree(&source, &[10, 200_000, 2_000_000, 2_000_001]);
        self.honest.send(1, &[&source], "data/honest/");
        self.honest.end_of(1).assert_done();
        assert_same(&source, &self.victim.export().join("honest/source"));
        self.victim.assert_alive();
    }
}

#[test]
fn frames_that_break_the_rules_cost_their_lane() {
    let mut scene = Scene::new(CLEAR);
    let rules = Counter::ProtocolErrors;
    scene.offend(rules, "garbage", |line| line.say(&bytes(64, 7)));
    scene.offend(rules, "an unknown kind", |line| {
        let mut bytes = header(FrameKind::Ping, 0, 0, b"");
        bytes[0] = 99;
        let crc = checksum(&bytes[..28]).to_le_bytes();
        bytes[28..].copy_from_slice(&crc);
        line.say(&bytes);
    });
    for (kind, length) in [(FrameKind::JobOpen, 16 * 1024 + 1), (FrameKind::Chunk, u32::MAX)] {
        scene.offend(rules, "an oversized frame", |line| {
            let mut bytes = header(kind, 1, 0, b"");
            bytes[4..8].copy_from_slice(&length.to_le_bytes());
            let crc = checksum(&bytes[..28]).to_le_bytes();
            bytes[28..].copy_from_slice(&crc);
            line.say(&bytes);
        });
    }
    scene.offend(rules, "a chunk shorter than its head", |line| {
        line.say(&frame(FrameKind::Chunk, 1, 0, &[0; 31]));
    });
    scene.offend(rules, "a task out of order", |line| line.say(&frame(FrameKind::Chunk, 1, 5, &chunk(1, 0))));
    scene.offend(rules, "a replayed task", |line| {
        line.say(&frame(FrameKind::Chunk, 1, 0, &chunk(1, 0)));
        line.say(&frame(FrameKind::Chunk, 1, 0, &chunk(1, 0)));
    });
    scene.offend(rules, "an acknowledgement of nothing", |line| {
        let mut ack = dwcp_abi::wire::Ack::new(u64::MAX);
        assert!(ack.add(7));
        let mut payload = [0; 64];
        let length = ack.encode(&mut payload).unwrap();
        line.say(&frame(FrameKind::Ack, 0, 0, &payload[..length]));
    });
    scene.offend(Counter::CrcFailures, "a small frame with a wrong checksum", |line| {
        let mut bytes = frame(FrameKind::Ping, 0, 0, &[0; 8]);
        bytes[33] ^= 1;
        line.say(&bytes);
    });
    scene.offend(Counter::CrcFailures, "a chunk with a wrong checksum", |line| {
        let mut bytes = frame(FrameKind::Chunk, 1, 0, &chunk(1, 0));
        *bytes.last_mut().unwrap() ^= 1;
        line.say(&bytes);
    });
    scene.assert_unharmed();
}

#[test]
fn a_peer_that_stops_in_the_middle_of_a_frame_loses_its_lane() {
    let mut scene = Scene::new(CLEAR);
    for stop in [40, 32 + 32 + 50] {
        scene.offend(Counter::LanesLost, "half a chunk", |line| {
            line.say(&frame(FrameKind::Chunk, 1, 0, &chunk(1, 0))[..stop]);
        });
    }
    scene.offend(Counter::LanesLost, "half a small frame", |line| {
        line.say(&frame(FrameKind::Ping, 0, 0, &[0; 8])[..36]);
    });
    scene.assert_unharmed();
}

#[test]
fn records_that_cannot_be_opened_cost_their_lane() {
    let mut scene = Scene::new(Shape { encrypt: true, ..CLEAR });
    scene.offend(Counter::LanesLost, "no record at all", |line| line.say(&bytes(100, 3)));
    scene.offend(Counter::CrcFailures, "a forged record", |line| {
        line.say(&[&[23, 3, 3, 0, 64][..], &bytes(64, 5)].concat());
    });
    scene.assert_unharmed();
}

#[test]
fn destinations_outside_of_the_exports_are_refused() {
    let mut scene = Scene::new(CLEAR);
    let outside = scene.directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, scene.victim.export().join("out")).unwrap();
    let mut line = scene.stranger.dial();
    let absolute = outside.to_str().unwrap();
    let escapes =
        ["data/../../outside", "data/out/", "data/out/x", absolute, "/", "", "other/x", "data/x/../../.."];
    for (job, destination) in (1..).zip(escapes) {
        line.open(job, destination);
        // Refused at once, or with the first entry.
        line.say(&frame(
            FrameKind::Pack,
            job,
            job - 1,
            &pack(&[(EntryKind::InlineFile, b"file", 3, b"abc")]),
        ));
        line.hear(FrameKind::JobAbort);
    }
    assert!(files(&outside).is_empty());
    assert!(!scene.directory.path().join("file").exists());
    scene.victim.assert_alive();
    scene.assert_unharmed();
}

#[test]
fn absurd_objects_and_chunks_outside_of_them_are_refused() {
    let mut scene = Scene::new(CLEAR);
    // A file of the largest size that there can be is all hole, or refused by the file system: either is well.
    let mut line = scene.stranger.dial();
    line.open(1, "data/absurd/");
    line.hear(FrameKind::JobAccept);
    line.say(&frame(FrameKind::Pack, 1, 0, &pack(&[(EntryKind::Object, b"huge", i64::MAX as u64, b"")])));
    drop(line);
    let rules = Counter::ProtocolErrors;
    for (job, (offset, length)) in
        (2..).zip([(CHUNK_BYTES as u64, 10), (7, 100), (0, 99), (u64::MAX - 9, 10)])
    {
        scene.offend(rules, "a chunk outside of its object", |line| {
            line.open(job, "data/absurd/");
            line.hear(FrameKind::JobAccept);
            line.say(&frame(FrameKind::Pack, job, 0, &pack(&[(EntryKind::Object, b"object", 100, b"")])));
            let opened = ObjectOpened::decode(&line.hear(FrameKind::ObjectOpened)).unwrap();
            assert_eq!((opened.object, opened.held), (1, false));
            let mut chunk = chunk(1, offset);
            chunk.resize(32 + length, 1);
            chunk[16..24].copy_from_slice(&(length as u64).to_le_bytes());
            line.say(&frame(FrameKind::Chunk, job, 1, &chunk));
        });
    }
    scene.assert_unharmed();
}

#[test]
fn an_object_whose_bytes_are_not_what_was_announced_never_gets_its_name() {
    let mut scene = Scene::new(CLEAR);
    let mut line = scene.stranger.dial();
    line.open(1, "data/lie/");
    line.hear(FrameKind::JobAccept);
    line.say(&frame(FrameKind::Pack, 1, 0, &pack(&[(EntryKind::Object, b"object", 100, b"")])));
    line.hear(FrameKind::ObjectOpened);
    line.say(&frame(FrameKind::Chunk, 1, 1, &chunk(1, 0)));
    let end = dwcp_abi::wire::ObjectEnd { object: 1, size: 100, digest: [7; 32] };
    line.say(&frame(FrameKind::ObjectEnd, 1, 1, &encoded(&end)));
    let done = line.hear(FrameKind::ObjectDone);
    let done = ObjectDone::decode(&done).unwrap();
    assert_eq!(done.code, dwcp_abi::wire::Code::Integrity);
    let end = JobEnd { packs: 1, entries: 1, objects: 1 };
    line.say(&frame(FrameKind::JobEnd, 1, 1, &encoded(&end)));
    line.hear(FrameKind::JobDone);
    assert!(files(&scene.victim.export()).is_empty(), "{:?}", files(&scene.victim.export()));
    scene.victim.assert_alive();
    scene.assert_unharmed();
}

#[test]
fn packs_of_jobs_that_are_over_or_never_were_leave_nothing_behind() {
    let mut scene = Scene::new(CLEAR);
    let mut line = scene.stranger.dial();
    line.open(1, "data/over/");
    line.hear(FrameKind::JobAccept);
    let end = JobEnd { packs: 0, entries: 0, objects: 0 };
    line.say(&frame(FrameKind::JobEnd, 1, 1, &encoded(&end)));
    line.hear(FrameKind::JobDone);
    let one = [(EntryKind::InlineFile, &b"f"[..], 1, &b"x"[..])];
    let late = |mut pack: Vec<u8>| {
        pack[..8].copy_from_slice(&EARLY_PACKS_MAX.to_le_bytes());
        pack
    };
    // More than there are buffers: each must come back.
    for sequence in 0..200 {
        let (job, pack) = if sequence % 2 == 0 { (1, pack(&one)) } else { (2, late(pack(&one))) };
        line.say(&frame(FrameKind::Pack, job, sequence, &pack));
        line.hear(FrameKind::Ack);
    }
    // One that may be early is waited for, but not for ever.
    line.say(&frame(FrameKind::Pack, 3, 200, &pack(&one)));
    line.assert_closed("a pack whose job does not come");
    assert!(files(&scene.victim.export()).is_empty());
    scene.victim.assert_alive();
    scene.assert_unharmed();
}

#[test]
fn a_peer_that_takes_lanes_and_reads_nothing_interrupts_its_job_only() {
    let mut scene = Scene::new(CLEAR);
    let listen = scene.victim.address().to_owned();
    let deaf = scene.stranger.address();
    let deaf_peer = crate::node::Named { name: "peer", ..scene.stranger.named(&deaf) };
    scene.honest.transport.connect_timeout_ms = 500;
    let other = scene.victim.named("other", &listen);
    scene.honest.know(&[deaf_peer, other]);
    scene.stranger.know(&scene.honest, Payload::ClearIfBoth);
    let source = scene.directory.path().join("source");
    tree(&source, &[300_000]);
    scene.honest.send(1, &[&source], "data/");
    scene.honest.send_to("other", 2, &[&source], "data/honest/");
    scene.honest.end_of(2).assert_done();
    let held = scene.stranger.line();
    scene.honest.end_of(1).assert_says(Outcome::Interrupted, &["says nothing"]);
    assert_same(&source, &scene.victim.export().join("honest/source"));
    drop(held);
}

fn chunk(object: u64, offset: u64) -> Vec<u8> {
    let head = ChunkHead { object, offset, length: 100, codec: Codec::Raw, reserved: [0; 3], attempt: 1 };
    [encoded(&head), bytes(100, 1)].concat()
}

/// A sealed pack behind its head.
fn pack(entries: &[(EntryKind, &[u8], u64, &[u8])]) -> Vec<u8> {
    let mut body = vec![0; 8192];
    let mut writer = PackWriter::new(&mut body);
    for (number, &(kind, name, size, content)) in (1..).zip(entries) {
        let object = if kind == EntryKind::Object { number } else { 0 };
        let header = EntryHeader {
            kind,
            flags: 0,
            name_length: name.len() as u16,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime_ns: 0,
            mtime_s: 0,
            size,
            object,
        };
        writer.append(header, name, content).unwrap();
    }
    let length = writer.seal(|entries| *blake3::hash(entries).as_bytes());
    [encoded(&PackHead { number: 0, attempt: 1, reserved: 0 }), body[..length].to_vec()].concat()
}

fn encoded<'a>(message: &impl Encoded<'a>) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    let length = message.encode(&mut bytes).unwrap();
    bytes.truncate(length);
    bytes
}
