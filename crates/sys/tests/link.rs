//! The link as control and dataplane use it: attached over a socket, driven through both rings from two threads,
//! attached again, and refused where what is handed over cannot be trusted.
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;

use dwcp_abi::codec::Encoded;
use dwcp_abi::link::{Attach, Attached, LINK_VERSION, Setup};
use dwcp_abi::shm::{
    COMMAND_RING, NodeCounter, NodeFigures, Ordering, RECORD_BYTES_MAX, RING_TAIL_WORD, RegionKind,
    WorkerCounter, WorkerFigures,
};
use dwcp_sys::doorbell::Doorbell;
use dwcp_sys::fds;
use dwcp_sys::link::{Link, LinkError, receive_message, send_message};
use dwcp_sys::shm::{SharedMemory, ShmError};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

const INSTANCE: u64 = 0x1122_3344_5566_7788;

const ATTACH: Attach<'_> = Attach {
    version: LINK_VERSION,
    workers: 0,
    cores: b"",
    backend: 0,
    hugepages: true,
    buffer_bytes: 1 << 26,
    listen: b"",
};

fn attached(workers: u16) -> Attached {
    Attached { version: LINK_VERSION, workers, instance: INSTANCE, pid: 1, fingerprint: [9; 32] }
}

/// A dataplane that answers one `Attach` with `answer`, and what control makes of it.
fn exchange(answer: impl FnOnce(&UnixStream) + Send) -> Result<(Attached, Link), LinkError> {
    let (control, dataplane) = UnixStream::pair().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut buffer = Vec::new();
            let body = receive_message(&dataplane, &mut buffer).unwrap().unwrap();
            assert!(matches!(Setup::decode(body).unwrap(), Setup::Attach(_)));
            answer(&dataplane);
        });
        Link::request(&control, ATTACH)
    })
}

fn request_from(link: &Link) -> Link {
    let answer = attached(u16::try_from(link.workers.len()).unwrap());
    exchange(|socket| link.offer(socket, &answer).unwrap()).unwrap().1
}

fn wait(doorbell: &Doorbell) {
    let mut polled = [PollFd::new(doorbell.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut polled, PollTimeout::from(20_000_u16)).unwrap(), 1, "the doorbell never rang");
    doorbell.answer().unwrap();
}

#[test]
fn most_workers_attach_with_one_message() {
    let link = Link::create(64, INSTANCE).unwrap();
    let (answer, control) = exchange(|socket| link.offer(socket, &attached(64)).unwrap()).unwrap();
    assert_eq!(answer, attached(64));
    assert_eq!(control.workers.len(), 64);
    assert!(matches!(Link::create(65, INSTANCE), Err(LinkError::Count { workers: 65, .. })));
    assert!(matches!(Link::create(0, INSTANCE), Err(LinkError::Count { workers: 0, .. })));
}

/// Every command comes back as an event, both sides sleeping whenever they can.
#[test]
fn a_worker_echoes_commands_through_both_rings() {
    const ROUNDS: usize = 3_000;
    let dataplane = Link::create(1, INSTANCE).unwrap();
    let control = request_from(&dataplane);
    let worker = &dataplane.workers[0];
    let peer = &control.workers[0];
    let record = |round: usize| vec![(round % 251) as u8; (round * 37) % RECORD_BYTES_MAX];

    thread::scope(|scope| {
        scope.spawn(|| {
            let mut commands = worker.region.command_consumer().unwrap();
            let mut events = worker.region.event_producer().unwrap();
            let mut buffer = vec![0; RECORD_BYTES_MAX];
            let mut echoed = 0;
            while echoed < ROUNDS {
                let Some(length) = commands.pop(&mut buffer).unwrap() else {
                    if commands.prepare_sleep() {
                        wait(&worker.command_doorbell);
                        commands.wake();
                    }
                    continue;
                };
                while match events.push(&buffer[..length]) {
                    Ok(true) => worker.event_doorbell.ring().is_err(),
                    Ok(false) => false,
                    Err(_full) => true,
                } {
                    thread::yield_now();
                }
                echoed += 1;
            }
        });

        let mut commands = peer.region.command_producer().unwrap();
        let mut events = peer.region.event_consumer().unwrap();
        let mut buffer = vec![0; RECORD_BYTES_MAX];
        let (mut sent, mut received) = (0, 0);
        while received < ROUNDS {
            if sent < ROUNDS
                && let Ok(rings) = commands.push(&record(sent))
            {
                sent += 1;
                if rings {
                    peer.command_doorbell.ring().unwrap();
                }
                continue;
            }
            if let Some(length) = events.pop(&mut buffer).unwrap() {
                assert_eq!(buffer[..length], record(received));
                received += 1;
            } else if events.prepare_sleep() {
                wait(&peer.event_doorbell);
                events.wake();
            }
        }
    });
}

#[test]
fn a_control_that_restarts_finds_the_rings_as_they_were() {
    let dataplane = Link::create(1, INSTANCE).unwrap();
    let mut events = dataplane.workers[0].region.event_producer().unwrap();
    let mut buffer = [0; 16];
    for round in 0..3_u8 {
        let control = request_from(&dataplane);
        control.workers[0].region.command_producer().unwrap().push(&[round]).unwrap();
        events.push(&[round]).unwrap();
        events.push(&[round]).unwrap();
        let mut consumer = control.workers[0].region.event_consumer().unwrap();
        assert_eq!(consumer.pop(&mut buffer).unwrap(), Some(1));
        // Each round leaves one of its two events to the next control: 0 0 1 1 2 2.
        assert_eq!(buffer[0], round / 2);
    }
    let mut commands = dataplane.workers[0].region.command_consumer().unwrap();
    for round in 0..3 {
        assert_eq!(commands.pop(&mut buffer).unwrap(), Some(1));
        assert_eq!(buffer[0], round);
    }
    assert_eq!(commands.pop(&mut buffer).unwrap(), None::<usize>);
}

#[test]
fn statistics_and_features_reach_control() {
    let dataplane = Link::create(2, INSTANCE).unwrap();
    let control = request_from(&dataplane);
    let mut figures = WorkerFigures::default();
    figures.add(WorkerCounter::BytesSent, 42);
    dataplane.workers[1].region.stats_writer().publish(&figures);
    assert_eq!(control.workers[1].region.stats().unwrap().value(WorkerCounter::BytesSent), 42);
    assert_eq!(control.workers[0].region.stats().unwrap().value(WorkerCounter::BytesSent), 0);
    let mut node = NodeFigures::default();
    node.set(NodeCounter::Workers, 2);
    dataplane.node.stats_writer().publish(&node);
    dataplane.node.features_writer().publish("io_uring\ton\t");
    assert_eq!(control.node.figures().unwrap(), node);
    assert_eq!(control.node.features().unwrap().text(), "io_uring\ton\t");
}

#[test]
fn a_reader_of_busy_statistics_gets_consistent_copies_only() {
    let dataplane = Link::create(1, INSTANCE).unwrap();
    let control = request_from(&dataplane);
    let (stop, stopped) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let region = &dataplane.workers[0].region;
        scope.spawn(move || {
            let (mut writer, mut figures) = (region.stats_writer(), WorkerFigures::default());
            while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                WorkerCounter::ALL.iter().for_each(|counter| figures.add(*counter, 1));
                writer.publish(&figures);
            }
        });
        for _ in 0..5_000 {
            let Ok(snapshot) = control.workers[0].region.stats() else { continue };
            let first = snapshot.value(WorkerCounter::Lanes);
            assert!(WorkerCounter::ALL.iter().all(|counter| snapshot.value(*counter) == first));
        }
        drop(stop);
    });
}

#[test]
fn another_version_count_instance_or_memory_is_refused() {
    let link = Link::create(2, INSTANCE).unwrap();
    let refused = |answer: Attached| exchange(|socket| link.offer(socket, &answer).unwrap()).unwrap_err();
    let version = refused(Attached { version: LINK_VERSION + 1, ..attached(2) });
    assert!(matches!(version, LinkError::Version { .. }), "{version}");
    for workers in [0, 1, 3, 65, u16::MAX] {
        let count = refused(attached(workers));
        assert!(matches!(count, LinkError::Count { descriptors: 7, .. }), "{count}");
    }
    let instance = refused(Attached { instance: 1, ..attached(2) });
    assert!(matches!(instance, LinkError::Region(_)), "{instance}");

    let unsealed = tempfile::tempfile().unwrap();
    let memory = exchange(|socket| {
        let mut bytes = [0; 128];
        let length = attached(1).encode(&mut bytes[4..]).unwrap();
        bytes[..4].copy_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
        fds::send(socket.as_fd(), &bytes[..4 + length], &[unsealed.as_fd(); 4]).unwrap();
    });
    assert!(matches!(memory, Err(LinkError::Memory(ShmError::System { .. }))));
}

#[test]
fn garbage_and_silence_on_the_socket_are_errors() {
    let closed = exchange(|_socket| {}).unwrap_err();
    assert!(matches!(closed, LinkError::Closed), "{closed}");
    let garbage = |bytes: &'static [u8]| {
        exchange(move |socket| {
            fds::send(socket.as_fd(), bytes, &[]).unwrap();
        })
        .unwrap_err()
    };
    assert!(matches!(garbage(&[0xff; 64]), LinkError::Message(_)));
    assert!(matches!(garbage(&[0, 64, 0, 0, 1]), LinkError::Message(_)));
    assert!(matches!(garbage(&[60, 0, 0, 0, 1]), LinkError::Closed));
    assert!(matches!(garbage(&[2, 0, 0, 0, 1, 1]), LinkError::Message(_)));

    let (left, right) = UnixStream::pair().unwrap();
    let mut buffer = Vec::new();
    send_message(&left, &Setup::PlanEnd(dwcp_abi::link::PlanEnd { generation: 4 })).unwrap();
    assert!(receive_message(&right, &mut buffer).unwrap().is_some());
    fds::send(left.as_fd(), &[9, 0], &[]).unwrap();
    drop(left);
    assert!(matches!(receive_message(&right, &mut buffer), Err(LinkError::Closed)));
    assert!(receive_message(&right, &mut buffer).unwrap().is_none());
}

#[test]
fn a_damaged_ring_is_started_over_by_whoever_attaches() {
    let dataplane = Link::create(1, INSTANCE).unwrap();
    let (left, right) = UnixStream::pair().unwrap();
    dataplane.offer(&left, &attached(1)).unwrap();
    let (_, mut descriptors) = fds::receive(right.as_fd(), &mut [0; 128], 4).unwrap();
    let hostile = SharedMemory::open(descriptors.remove(1), RegionKind::Worker(0).region_bytes()).unwrap();
    let tail = &hostile.words()[COMMAND_RING.words().start + RING_TAIL_WORD];

    let region = &dataplane.workers[0].region;
    for damage in [3, u64::MAX, 1 << 40] {
        tail.store(damage, Ordering::Relaxed);
        let mut consumer = region.command_consumer().unwrap();
        tail.store(damage ^ 1 << 50, Ordering::Relaxed);
        let mut producer = region.command_producer().unwrap();
        producer.push(b"again").unwrap();
        assert_eq!(consumer.pop(&mut [0; 8]), Ok(Some(5)));
    }
}
