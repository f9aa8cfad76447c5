//! A peer that breaks the rules ends its own connections or lanes, holds no more than its window, and leaves others alone.
use dwcp_abi::wire::{
    Code, TUNNEL_FLAG_OPENER, TUNNEL_HEADER_BYTES, TUNNEL_PAYLOAD_MAX, TUNNEL_WINDOW_FIRST, TunnelAck,
    TunnelFrame, TunnelKind, TunnelOpen, tunnel_frame, tunnel_seal,
};
use dwcp_engine::{ConnectionKey, LaneEnd, Mux, Opener, TunnelEvent, TunnelLane, TunnelLimits, Violation};

use crate::Rng;

const LANE: TunnelLane = TunnelLane(1);
const SECOND: u64 = 1_000_000_000;

fn mux() -> Mux {
    let mut mux = Mux::new(TunnelLimits { connections_max: 4, ..TunnelLimits::default() });
    mux.handle_lane_up(LANE, LaneEnd::Dialled, 1, 1);
    mux
}

fn hear(mux: &mut Mux, bytes: &[u8]) -> Result<(), Violation> {
    let frame = TunnelFrame::decode_front(bytes).unwrap().unwrap();
    mux.handle_frame(LANE, &frame, 2)
}

fn open(mux: &mut Mux, number: u32) -> Result<(), Violation> {
    let mut bytes = [0; 128];
    let open = TunnelOpen { credit: TUNNEL_WINDOW_FIRST, target: b"t:1" };
    let length = tunnel_frame(TunnelKind::Open, TUNNEL_FLAG_OPENER, number, 0, &open, &mut bytes).unwrap();
    hear(mux, &bytes[..length])
}

fn data(mux: &mut Mux, number: u32, offset: u64, length: usize) -> Result<(), Violation> {
    let mut bytes = vec![0; TUNNEL_HEADER_BYTES + length];
    let flags = TUNNEL_FLAG_OPENER;
    tunnel_seal(TunnelKind::Data, flags, number, offset, length, &mut bytes).unwrap();
    hear(mux, &bytes)
}

fn key(number: u32) -> ConnectionKey {
    ConnectionKey { opener: Opener::Peer, number }
}

/// Kinds and codes of everything that is said now.
fn said(mux: &mut Mux) -> Vec<TunnelKind> {
    let mut bytes = vec![0; TUNNEL_HEADER_BYTES + TUNNEL_PAYLOAD_MAX];
    let mut kinds = Vec::new();
    while let Some(length) = mux.poll_frame(LANE, 2, &mut bytes) {
        kinds.push(TunnelFrame::decode_front(&bytes[..length]).unwrap().unwrap().header.kind);
    }
    kinds
}

fn is_reset(mux: &mut Mux, number: u32, code: Code) -> bool {
    std::iter::from_fn(|| mux.poll_event()).any(
        |event| matches!(event, TunnelEvent::Reset { key: reset, code: found, .. } if reset == key(number) && found == code),
    )
}

#[test]
fn bytes_beyond_the_window_or_behind_a_gap_end_the_connection() {
    for (offset, length) in [(1, 5), (TUNNEL_WINDOW_FIRST - 2, 5), (u64::MAX, 5)] {
        let mut mux = mux();
        open(&mut mux, 1).unwrap();
        open(&mut mux, 2).unwrap();
        data(&mut mux, 1, offset, length).unwrap();
        assert!(is_reset(&mut mux, 1, Code::Protocol), "{offset}");
        assert_eq!(mux.connections(), [key(2)]);
        assert!(said(&mut mux).contains(&TunnelKind::Reset));
    }
    let mut mux = mux();
    open(&mut mux, 1).unwrap();
    for offset in (0..TUNNEL_WINDOW_FIRST).step_by(16_000).take(4) {
        data(&mut mux, 1, offset, 16_000).unwrap();
    }
    data(&mut mux, 1, 64_000, 16_000).unwrap();
    assert!(is_reset(&mut mux, 1, Code::Protocol), "nobody reads: the window is full");
    assert_eq!(mux.held_bytes(), 0);
}

#[test]
fn acknowledgements_of_what_was_not_sent_end_the_connection() {
    let mut mux = mux();
    open(&mut mux, 1).unwrap();
    mux.accept(key(1));
    mux.write(key(1), b"four");
    said(&mut mux);
    let mut ack = |offset| {
        let mut bytes = [0; 64];
        let words = TunnelAck { credit: u64::MAX };
        let length =
            tunnel_frame(TunnelKind::Ack, TUNNEL_FLAG_OPENER, 1, offset, &words, &mut bytes).unwrap();
        hear(&mut mux, &bytes[..length]).unwrap();
        mux.connections().len()
    };
    assert_eq!((ack(4), ack(2), ack(5)), (1, 1, 0));
}

#[test]
fn a_crowd_is_refused_and_a_number_is_used_once() {
    let mut mux = mux();
    for number in 1..=6 {
        open(&mut mux, number).unwrap();
        open(&mut mux, number).unwrap();
    }
    assert_eq!(mux.connections().len(), 4);
    mux.reset(key(1), Code::Io, "refused");
    open(&mut mux, 1).unwrap();
    assert_eq!(mux.connections().len(), 3, "what has ended does not begin again");
    assert_eq!(said(&mut mux).iter().filter(|kind| **kind == TunnelKind::Reset).count(), 3);
}

#[test]
fn pings_without_end_cost_the_lane() {
    let mut mux = mux();
    let mut bytes = [0; TUNNEL_HEADER_BYTES];
    tunnel_seal(TunnelKind::Ping, 0, 0, 1, 0, &mut bytes).unwrap();
    assert!((0..100).any(|_| hear(&mut mux, &bytes).is_err()));
}

#[test]
fn a_peer_that_is_away_too_long_or_started_again_ends_everything_with_a_reason() {
    let mut mux = mux();
    let own = mux.open(b"t:1", 3).unwrap();
    open(&mut mux, 1).unwrap();
    mux.handle_lane_down(LANE, SECOND);
    mux.handle_time(20 * SECOND);
    assert_eq!(mux.connections().len(), 2, "a while is borne");
    mux.handle_time(32 * SECOND);
    let events: Vec<TunnelEvent> = std::iter::from_fn(|| mux.poll_event()).collect();
    assert!(events.iter().any(
        |event| matches!(event, TunnelEvent::Refused { key, code: Code::Timeout, text } if *key == own && text.contains("no lane"))
    ));
    assert!(mux.connections().is_empty());
    mux.handle_lane_up(TunnelLane(2), LaneEnd::Dialled, 1, 33 * SECOND);
    mux.open(b"t:1", 33 * SECOND).unwrap();
    mux.handle_lane_up(TunnelLane(3), LaneEnd::Dialled, 2, 34 * SECOND);
    let events: Vec<TunnelEvent> = std::iter::from_fn(|| mux.poll_event()).collect();
    assert!(events.contains(&TunnelEvent::Stale { lane: TunnelLane(2) }));
    assert!(mux.connections().is_empty());
}

#[test]
fn nothing_waits_for_a_lane_that_has_not_said_a_first_word() {
    let mut mux = Mux::new(TunnelLimits::default());
    mux.handle_lane_up(LANE, LaneEnd::Accepted, 1, 1);
    let own = mux.open(b"t:1", 1).unwrap();
    assert_eq!(said(&mut mux), [], "the door's rule: the dialler speaks first");
    mux.handle_lane_up(TunnelLane(2), LaneEnd::Dialled, 1, 2);
    let mut bytes = vec![0; TUNNEL_HEADER_BYTES + TUNNEL_PAYLOAD_MAX];
    let length = (0..2).filter_map(|_| mux.poll_frame(TunnelLane(2), 2, &mut bytes)).last().unwrap();
    let frame = TunnelFrame::decode_front(&bytes[..length]).unwrap().unwrap();
    assert_eq!((frame.header.kind, frame.header.connection), (TunnelKind::Open, own.number));
    mux.handle_lane_down(TunnelLane(2), 3);
    mux.handle_time(11 * SECOND);
    assert_eq!(mux.poll_event(), Some(TunnelEvent::Silent { lane: LANE }));
    mux.handle_time(40 * SECOND);
    assert!(mux.connections().is_empty(), "it waits no longer than for a peer without lanes");
}

#[test]
fn a_lane_that_says_nothing_is_given_up() {
    let mut mux = mux();
    said(&mut mux);
    mux.handle_time(6 * SECOND);
    mux.handle_time(12 * SECOND);
    assert_eq!(mux.poll_event(), Some(TunnelEvent::Silent { lane: LANE }));
    assert_eq!(mux.lanes(), 0);
}

#[test]
fn frames_of_any_kind_in_any_order_never_panic_and_hold_little() {
    for seed in 1..=2000 {
        let (mut rng, mut mux) = (Rng::new(seed), mux());
        for _ in 0..200 {
            let kind = TunnelKind::ALL[rng.below(TunnelKind::ALL.len() as u64) as usize];
            let (number, flags) = (rng.below(6) as u32, rng.below(8) as u8);
            let offset = if rng.one_in(8) { rng.next() } else { rng.below(40) };
            let mut bytes = [0; 256];
            let length = match kind {
                TunnelKind::Open => {
                    let open = TunnelOpen { credit: rng.next(), target: b"t:1" };
                    tunnel_frame(kind, flags, number, offset, &open, &mut bytes)
                }
                TunnelKind::Ack => {
                    let ack = TunnelAck { credit: rng.next() };
                    tunnel_frame(kind, flags, number, offset, &ack, &mut bytes)
                }
                _ => tunnel_seal(kind, flags, number, offset, rng.below(100) as usize, &mut bytes),
            };
            // A violation would end the lane; here it goes on all the same.
            let _ = hear(&mut mux, &bytes[..length.unwrap()]);
            for key in mux.connections() {
                match rng.below(8) {
                    0 => mux.accept(key),
                    1 => mux.finish(key),
                    2 => drop(mux.write(key, &[7; 500])),
                    3 => mux.consume(key, 10),
                    4 => drop(mux.take_end(key)),
                    _ => {}
                }
            }
            said(&mut mux);
            while mux.poll_event().is_some() {}
            assert!(mux.held_bytes() < 1 << 20, "seed {seed}");
        }
    }
}
