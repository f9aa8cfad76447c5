//! What an engine does with lanes, credits and acknowledgements, seen at its border: one worker, one peer, and a
//! driver that answers at once.
use dwcp_abi::codec::Encoded;
use dwcp_abi::link::Outcome;
use dwcp_abi::wire::{
    Ack, CHUNK_BYTES, ChunkHead, ChunkRanges, Code, Codec, ContentId, FLAG_OWNER, FRAME_HEADER_BYTES,
    FetchRequest, FrameHeader, FrameKind, Held, JobAbort, JobAccept, JobDone, JobOpen, ObjectEnd,
    ObjectOpened, ObjectPlain, PACK_HEAD_BYTES, PackHead, TreeOptions, checksum,
};
use dwcp_engine::{
    BufferId, Config, Engine, FileId, FinalCheck, FoundObject, Input, JobKey, LaneEnd, LaneId, Leftovers,
    OpenedObject, Output, Owner, PackId, PeerId, Place, TaskId,
};

const PEER: PeerId = PeerId(3);
const JOB: JobKey = JobKey { peer: PEER, owner: Owner::Local, id: 5 };
const THEIR_JOB: JobKey = JobKey { peer: PEER, owner: Owner::Remote, id: 5 };
const CHUNK: u64 = CHUNK_BYTES as u64;
const BUFFERS: usize = 4;
const SECOND: u64 = 1_000_000_000;

fn engine_of(worker: u16, workers: u16) -> Engine {
    let buffers = BUFFERS as u32;
    Engine::new(Config {
        worker,
        workers,
        send_buffers: (0..buffers).map(BufferId).collect(),
        receive_buffers: (buffers..2 * buffers).map(BufferId).collect(),
        initial_streams: 2,
        max_streams: 4,
        packs_max: 4,
        objects_max: 4,
        jobs_max: 4,
        patience: 30 * SECOND,
    })
}

fn outputs(engine: &mut Engine) -> Vec<Output> {
    engine.flush();
    std::iter::from_fn(|| engine.poll_output()).collect()
}

fn up(engine: &mut Engine, lane: u32, instance: u64) -> Vec<Output> {
    let (lane, end) = (LaneId(lane), LaneEnd::Dialled);
    engine.handle(1, Input::LaneUp { lane, peer: PEER, instance, end });
    outputs(engine)
}

fn down(engine: &mut Engine, lane: u32) -> Vec<Output> {
    engine.handle(1, Input::LaneClosing { lane: LaneId(lane) });
    engine.handle(1, Input::LaneDown { lane: LaneId(lane) });
    outputs(engine)
}

fn say<'a>(
    engine: &mut Engine,
    lane: u32,
    (kind, job, attempt): (FrameKind, JobKey, u64),
    payload: &impl Encoded<'a>,
) -> Vec<Output> {
    let mut bytes = vec![0; 4096];
    let length = payload.encode(&mut bytes).expect("a payload fits");
    let payload = &bytes[..length];
    let flags = if job.owner == Owner::Remote { FLAG_OWNER } else { 0 };
    let payload_crc = checksum(payload);
    let header =
        FrameHeader { kind, flags, length: length as u32, job: job.id, sequence: attempt, payload_crc };
    engine.handle(1, Input::Frame { lane: LaneId(lane), header, payload });
    outputs(engine)
}

/// Lets the small frames of a lane go, and says which they were.
fn heard(engine: &mut Engine, lane: u32) -> Vec<(FrameKind, u64)> {
    let mut bytes = vec![0; 1 << 20];
    let length = engine.outbox(LaneId(lane), &mut bytes);
    let (mut rest, mut frames) = (&bytes[..length], Vec::new());
    while let Some((head, tail)) = rest.split_first_chunk::<FRAME_HEADER_BYTES>() {
        let header = FrameHeader::from_bytes(head).expect("an engine's frames can be read");
        frames.push((header.kind, header.sequence));
        rest = &tail[header.length as usize..];
    }
    engine.handle(1, Input::Sent { lane: LaneId(lane), bytes: length as u64 });
    frames
}

fn ack(engine: &mut Engine, lane: u32, credit: u64, sequences: &[u64]) -> Vec<Output> {
    let mut ack = Ack::new(credit);
    assert!(sequences.iter().all(|&sequence| ack.add(sequence)), "few ranges");
    say(engine, lane, (FrameKind::Ack, JobKey { id: 0, ..JOB }, 0), &ack)
}

/// A job that sends one object of so many chunks, up to the point where its first chunks are read.
fn sending(engine: &mut Engine, chunks: u64) -> Vec<Output> {
    let (chunks_held, baseline) = (ChunkRanges::NONE, Held::NOTHING);
    sending_to(engine, chunks, &ObjectOpened { object: 1, held: false, chunks: chunks_held, baseline })
}

fn sending_to(engine: &mut Engine, chunks: u64, opened: &ObjectOpened) -> Vec<Output> {
    up(engine, 0, 7);
    heard(engine, 0);
    let (destination, streams, options) = (&b"there"[..], 1, TreeOptions::NONE);
    engine.handle(1, Input::Send { job: JOB, attempt: 1, destination, filters: b"", streams, options });
    engine.handle(1, Input::ScannerOpened { job: JOB, result: Ok(()) });
    outputs(engine);
    heard(engine, 0);
    say(engine, 0, (FrameKind::JobAccept, JOB, 1), &JobAccept { question: false });
    let size = chunks * CHUNK;
    let objects = vec![FoundObject { object: 1, file: FileId(9), size, extents: vec![(0, size)] }];
    let (pack, entries, bytes, failures, end) = (PackId(1), 1, 0, 0, true);
    engine.handle(1, Input::Filled { job: JOB, pack, entries, bytes, objects, failures, end });
    let sent = outputs(engine);
    assert!(sent.iter().any(|output| matches!(output, Output::SendPack { sequence: 0, .. })), "{sent:?}");
    engine.handle(1, Input::Sent { lane: LaneId(0), bytes: 100 });
    ack(engine, 0, 65, &[0]);
    say(engine, 0, (FrameKind::ObjectOpened, JOB, 1), opened)
}

fn reads(outputs: &[Output]) -> Vec<(TaskId, u64)> {
    let read = |output: &Output| match output {
        Output::Read { task, offset, .. } => Some((*task, *offset)),
        _ => None,
    };
    outputs.iter().filter_map(read).collect()
}

/// Reads and sends until nothing more is asked for; the sequences that were used.
fn send_all(engine: &mut Engine, first: Vec<Output>) -> Vec<u64> {
    let (mut todo, mut sequences) = (first, Vec::new());
    while let Some(output) = todo.pop() {
        match output {
            Output::Read { task, .. } => engine.handle(1, Input::Read { task, result: Ok([1; 32]) }),
            Output::SendChunk { lane, sequence, .. } => {
                sequences.push(sequence);
                engine.handle(1, Input::Sent { lane, bytes: CHUNK });
            }
            Output::SendOutbox { lane } => drop(heard(engine, lane.0)),
            _ => continue,
        }
        todo.extend(outputs(engine));
    }
    sequences.sort_unstable();
    sequences
}

#[test]
fn a_sender_stops_at_its_credit_and_goes_on_when_there_is_more() {
    let mut engine = engine_of(0, 1);
    let first = sending(&mut engine, 200);
    let sequences = send_all(&mut engine, first);
    assert_eq!(sequences.last(), Some(&64), "credit for 65 tasks: a pack and 64 chunks");
    assert_eq!(engine.buffers_free().0, BUFFERS, "what waits for an acknowledgement holds no buffer");
    let more = ack(&mut engine, 0, 67, &[1, 2]);
    assert_eq!(send_all(&mut engine, more), [65, 66]);
}

#[test]
fn an_acknowledgement_before_sent_keeps_the_buffer_until_sent() {
    let mut engine = engine_of(0, 1);
    let first = reads(&sending(&mut engine, 1));
    engine.handle(1, Input::Read { task: first[0].0, result: Ok([1; 32]) });
    let sent = outputs(&mut engine);
    assert!(sent.iter().any(|output| matches!(output, Output::SendChunk { sequence: 1, .. })), "{sent:?}");
    ack(&mut engine, 0, 66, &[1]);
    assert_eq!(engine.buffers_free().0, BUFFERS - 1, "the kernel may still read the buffer");
    assert_eq!(engine.tasks(), 1);
    engine.handle(1, Input::Sent { lane: LaneId(0), bytes: CHUNK });
    assert_eq!((engine.buffers_free().0, engine.tasks()), (BUFFERS, 0));
}

#[test]
fn what_a_dead_lane_owed_goes_to_the_next_one_and_a_read_outlives_its_lane() {
    let mut engine = engine_of(0, 1);
    let first = reads(&sending(&mut engine, 2));
    assert_eq!(first.iter().map(|read| read.1).collect::<Vec<_>>(), [0, CHUNK]);
    engine.handle(1, Input::Read { task: first[0].0, result: Ok([1; 32]) });
    outputs(&mut engine);
    engine.handle(1, Input::Sent { lane: LaneId(0), bytes: CHUNK });
    down(&mut engine, 0);
    let again = reads(&up(&mut engine, 0, 7));
    assert_eq!(again.iter().map(|read| read.1).collect::<Vec<_>>(), [0], "the sent chunk is read again");
    // The other chunk's read was for the former lane of this id.
    engine.handle(1, Input::Read { task: first[1].0, result: Ok([2; 32]) });
    let late = reads(&outputs(&mut engine));
    assert_eq!(late.iter().map(|read| read.1).collect::<Vec<_>>(), [CHUNK]);
    assert_eq!(engine.tasks(), 2);
}

#[test]
fn claims_about_what_was_never_sent_cost_the_lane() {
    for (start, credit) in [(1, 65), (u64::MAX - 1, u64::MAX)] {
        let mut engine = engine_of(0, 1);
        up(&mut engine, 0, 7);
        let closed = ack(&mut engine, 0, credit, &[start]);
        assert!(
            closed.iter().any(|output| matches!(output, Output::CloseLane { code: Code::Protocol, .. })),
            "{closed:?}"
        );
    }
}

/// A job of the peer's, with an open object of so many chunks and one chunk of it being written.
fn receiving(engine: &mut Engine) -> TaskId {
    up(engine, 0, 7);
    heard(engine, 0);
    let open = JobOpen {
        attempt: 1,
        options: TreeOptions::NONE,
        baselines: false,
        packs: 0,
        destination: b"here",
        filters: b"",
    };
    say(engine, 0, (FrameKind::JobOpen, THEIR_JOB, 1), &open);
    engine.handle(1, Input::ReceiverOpened { job: THEIR_JOB, result: Ok(()) });
    let header = task_header(FrameKind::Pack, 0, PACK_HEAD_BYTES as u32);
    let buffer = announce(engine, header);
    let head = PackHead { number: 0, attempt: 1, reserved: 0 };
    engine.handle(1, Input::Pack { lane: LaneId(0), header, head, buffer });
    let task = outputs(engine).into_iter().find_map(|output| match output {
        Output::Unpack { task, .. } => Some(task),
        _ => None,
    });
    let (place, size, baseline) = (Place::Open(FileId(4)), 2 * CHUNK, Held::NOTHING);
    let opened = vec![OpenedObject { object: 1, place, size, held: Vec::new(), baseline }];
    let (task, entries, bytes, failures, fatal) = (task.expect("it is unpacked"), 1, 0, 0, None);
    engine.handle(1, Input::Unpacked { task, entries, bytes, opened, failures, fatal });
    chunk(engine, 1)
}

fn task_header(kind: FrameKind, sequence: u64, length: u32) -> FrameHeader {
    FrameHeader { kind, flags: FLAG_OWNER, length, job: THEIR_JOB.id, sequence, payload_crc: 0 }
}

fn announce(engine: &mut Engine, header: FrameHeader) -> BufferId {
    engine.handle(1, Input::TaskHeader { lane: LaneId(0), header });
    let buffer = outputs(engine).into_iter().find_map(|output| match output {
        Output::Receive { buffer, .. } => Some(buffer),
        _ => None,
    });
    buffer.expect("there are buffers")
}

fn chunk(engine: &mut Engine, sequence: u64) -> TaskId {
    let header = task_header(FrameKind::Chunk, sequence, CHUNK_BYTES + 32);
    let buffer = announce(engine, header);
    let (offset, codec) = (0, Codec::Raw);
    let head = ChunkHead { object: 1, offset, length: CHUNK, codec, reserved: [0; 3], attempt: 1 };
    engine.handle(1, Input::Chunk { lane: LaneId(0), header, head, buffer });
    let task = outputs(engine).into_iter().find_map(|output| match output {
        Output::Write { task, .. } => Some(task),
        _ => None,
    });
    task.expect("it is written")
}

#[test]
fn a_write_that_outlives_its_lane_is_not_acknowledged_on_the_next_one() {
    let mut engine = engine_of(0, 1);
    let write = receiving(&mut engine);
    down(&mut engine, 0);
    up(&mut engine, 0, 7);
    heard(&mut engine, 0);
    engine.handle(1, Input::Written { task: write, result: Ok([1; 32]), text: "" });
    outputs(&mut engine);
    let said = heard(&mut engine, 0);
    assert!(said.iter().all(|&(kind, _)| kind != FrameKind::Ack), "{said:?}");
    assert_eq!(engine.buffers_free().1, BUFFERS);
}

#[test]
fn a_late_word_of_a_former_attempt_is_not_taken_for_this_one() {
    let mut engine = engine_of(0, 1);
    receiving(&mut engine);
    let open = JobOpen {
        attempt: 2,
        options: TreeOptions::NONE,
        baselines: false,
        packs: 0,
        destination: b"here",
        filters: b"",
    };
    let opened = say(&mut engine, 0, (FrameKind::JobOpen, THEIR_JOB, 2), &open);
    assert!(
        opened.contains(&Output::CloseReceiver { job: THEIR_JOB, leftovers: Leftovers::Keep }),
        "{opened:?}"
    );
    let abort = JobAbort { code: Code::Cancelled, text: b"late" };
    say(&mut engine, 0, (FrameKind::JobAbort, THEIR_JOB, 1), &abort);
    assert_eq!(engine.jobs(), 1);
    say(&mut engine, 0, (FrameKind::JobAbort, THEIR_JOB, 2), &abort);
    assert_eq!(engine.jobs(), 0);
}

#[test]
fn a_job_that_nobody_knows_is_answered() {
    let mut engine = engine_of(0, 1);
    up(&mut engine, 0, 7);
    heard(&mut engine, 0);
    say(&mut engine, 0, (FrameKind::JobAccept, THEIR_JOB, 4), &JobAccept { question: true });
    assert_eq!(heard(&mut engine, 0), [(FrameKind::JobAbort, 4)]);
}

#[test]
fn a_peer_cannot_order_in_our_name() {
    let mut engine = engine_of(0, 1);
    up(&mut engine, 0, 7);
    let fetch = FetchRequest { attempt: 1, options: TreeOptions::NONE, sources: b"/etc", filters: b"" };
    let ordered = say(&mut engine, 0, (FrameKind::Fetch, JOB, 1), &fetch);
    assert_eq!((ordered, engine.jobs()), (Vec::new(), 0));
}

#[test]
fn a_peer_that_was_started_anew_interrupts_its_jobs_and_loses_its_former_lanes() {
    let mut engine = engine_of(0, 1);
    sending(&mut engine, 2);
    let changed = up(&mut engine, 1, 8);
    let ended = changed.iter().any(|output| {
        matches!(output, Output::Ended { job: JOB, outcome: Outcome::Interrupted, text, .. } if !text.is_empty())
    });
    assert!(ended, "{changed:?}");
    let closed =
        |lane| move |output: &Output| matches!(output, Output::CloseLane { lane: of, .. } if *of == lane);
    assert!(changed.iter().any(closed(LaneId(0))), "{changed:?}");
    let late = up(&mut engine, 2, 7);
    assert!(late.iter().any(closed(LaneId(2))), "a process that is gone does not come back: {late:?}");
}

#[test]
fn a_home_without_lanes_hands_its_packs_to_workers_that_have_some() {
    let (mut home, mut carrier) = (engine_of(1, 2), engine_of(0, 2));
    let (destination, streams, options) = (&b"there"[..], 1, TreeOptions::NONE);
    home.handle(1, Input::Send { job: JOB, attempt: 1, destination, filters: b"", streams, options });
    home.handle(1, Input::ScannerOpened { job: JOB, result: Ok(()) });
    let end = LaneEnd::Dialled;
    carrier.handle(1, Input::LaneUp { lane: LaneId(0), peer: PEER, instance: 7, end });
    let mut sent = talk(&mut home, &mut carrier);
    heard(&mut carrier, 0);
    say(&mut carrier, 0, (FrameKind::JobAccept, JOB, 1), &JobAccept { question: false })
        .into_iter()
        .for_each(|output| pass(output, 0, &mut home, &mut sent));
    let (pack, entries, bytes, objects, failures) = (PackId(1), 1, 5, Vec::new(), 0);
    home.handle(1, Input::Filled { job: JOB, pack, entries, bytes, objects, failures, end: true });
    sent.extend(talk(&mut home, &mut carrier));
    heard(&mut carrier, 0);
    sent.extend(talk(&mut home, &mut carrier));
    assert!(sent.iter().any(|output| matches!(output, Output::SendPack { pack: PackId(1), .. })), "{sent:?}");
    carrier.handle(1, Input::Sent { lane: LaneId(0), bytes: 100 });
    let mut ack = Ack::new(65);
    assert!(ack.add(0));
    let mut done = Vec::new();
    say(&mut carrier, 0, (FrameKind::Ack, JobKey { id: 0, ..JOB }, 0), &ack)
        .into_iter()
        .for_each(|output| pass(output, 0, &mut home, &mut done));
    done.extend(talk(&mut home, &mut carrier));
    assert!(done.contains(&Output::DropPack { pack: PackId(1) }), "{done:?}");
    assert!(sent.contains(&Output::FillFinals { job: JOB }), "all is scanned: {sent:?}");
}

/// Lets two workers talk until they are silent; what else they want done.
fn talk(home: &mut Engine, carrier: &mut Engine) -> Vec<Output> {
    let mut others = Vec::new();
    loop {
        let (of_home, of_carrier) = (outputs(home), outputs(carrier));
        if of_home.is_empty() && of_carrier.is_empty() {
            return others;
        }
        of_home.into_iter().for_each(|output| pass(output, 1, carrier, &mut others));
        of_carrier.into_iter().for_each(|output| pass(output, 0, home, &mut others));
    }
}

fn pass(output: Output, from: u16, to: &mut Engine, others: &mut Vec<Output>) {
    match output {
        Output::Tell { tell, .. } => to.handle(1, Input::Told { worker: from, tell }),
        output => others.push(output),
    }
}

#[test]
fn what_differences_could_not_make_is_sent_as_it_is() {
    let mut engine = engine_of(0, 1);
    engine.handle(1, Input::Deltas { peer: PEER, pay: true });
    let (chunks, baseline) = (ChunkRanges::NONE, Held { content: ContentId([4; 16]), length: 5 });
    let opened = ObjectOpened { object: 1, held: false, chunks, baseline };
    let asked = sending_to(&mut engine, 2, &opened);
    let prepare = Output::Prepare { job: JOB, object: 1, file: FileId(9), baseline };
    assert!(asked.contains(&prepare) && reads(&asked).is_empty(), "{asked:?}");
    engine.handle(1, Input::Prepared { job: JOB, object: 1 });
    let first = outputs(&mut engine);
    let sent = send_all(&mut engine, first);
    ack(&mut engine, 0, 65, &sent);
    let plain = ObjectPlain { object: 1, chunks: ChunkRanges::of_bytes([(CHUNK, 2 * CHUNK)], 2 * CHUNK) };
    let again = say(&mut engine, 0, (FrameKind::ObjectPlain, JOB, 1), &plain);
    assert!(again.contains(&Output::SendPlain { file: FileId(9) }), "{again:?}");
    assert_eq!(reads(&again).iter().map(|read| read.1).collect::<Vec<_>>(), [CHUNK]);
    assert_eq!(send_all(&mut engine, again).len(), 1);
}

#[test]
fn a_chunk_that_cannot_be_made_is_asked_for_until_it_comes() {
    let mut engine = engine_of(0, 1);
    let write = receiving(&mut engine);
    engine.handle(1, Input::Written { task: write, result: Ok([1; 32]), text: "" });
    let header = task_header(FrameKind::Chunk, 2, 100);
    let buffer = announce(&mut engine, header);
    let (offset, codec) = (CHUNK, Codec::Block);
    let head = ChunkHead { object: 1, offset, length: CHUNK, codec, reserved: [0; 3], attempt: 1 };
    assert_eq!(engine.target_file(LaneId(0), &header, 1), Some(FileId(4)));
    engine.handle(1, Input::Unmade { lane: LaneId(0), header, head, buffer });
    outputs(&mut engine);
    let said = heard(&mut engine, 0);
    assert!(said.iter().any(|&(kind, _)| kind == FrameKind::ObjectPlain), "{said:?}");
    assert_eq!(engine.buffers_free().1, BUFFERS);
    let end = ObjectEnd { object: 1, size: 2 * CHUNK, digest: [1; 32] };
    say(&mut engine, 0, (FrameKind::ObjectEnd, THEIR_JOB, 1), &end);
    let said = heard(&mut engine, 0);
    assert!(said.iter().any(|&(kind, _)| kind == FrameKind::ObjectPlain), "it may have got lost: {said:?}");
}

#[test]
fn what_arrived_is_kept_also_where_the_jobs_end_overtakes_the_objects() {
    let mut engine = engine_of(0, 1);
    engine.handle(1, Input::Deltas { peer: PEER, pay: true });
    let first = sending(&mut engine, 1);
    let sent = send_all(&mut engine, first);
    ack(&mut engine, 0, 65, &sent);
    engine.handle(1, Input::SourceChecked { job: JOB, object: 1, check: FinalCheck::Unchanged });
    outputs(&mut engine);
    let done =
        say(&mut engine, 0, (FrameKind::JobDone, JOB, 1), &JobDone { failures: 0, text: b"", changes: b"" });
    let kept = done.iter().find_map(|output| match output {
        Output::CloseFile { object: 1, keep, .. } => *keep,
        _ => None,
    });
    assert!(kept.is_some(), "{done:?}");
}
