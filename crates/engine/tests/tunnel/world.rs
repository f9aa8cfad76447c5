//! Both ends, the lanes between them, and the programs at either side.
use std::collections::{BTreeMap, VecDeque};

use dwcp_abi::wire::{Code, TUNNEL_HEADER_BYTES, TUNNEL_PAYLOAD_MAX, TunnelFrame};
use dwcp_engine::{ConnectionKey, LaneEnd, Mux, Opener, TunnelEvent, TunnelLane, TunnelLimits};

use crate::Rng;

/// What happens in a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) connections: u64,
    /// Lanes that die at most: after the last of them nothing reminds an end of what it forgot to say.
    pub(crate) deaths: u64,
    pub(crate) resets: bool,
    pub(crate) slow: bool,
}

/// What happened.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    pub(crate) lanes_died: u64,
    /// Connections that did not come to a good end.
    pub(crate) broken: u64,
    pub(crate) held_max: u64,
}

pub(crate) struct World {
    seed: u64,
    plan: Plan,
    rng: Rng,
    now: u64,
    ends: [Mux; 2],
    lanes: BTreeMap<TunnelLane, Wire>,
    next_lane: u64,
    /// By the opener's end and number.
    programs: BTreeMap<(usize, u32), Pair>,
    begun: u64,
    ended: Ended,
    /// Bytes of every stream, where they are not random.
    pub(crate) length: Option<u64>,
}

/// A lane: frames on their way in both directions, and which ends believe in it.
struct Wire {
    towards: [VecDeque<(u64, Vec<u8>)>; 2],
    believed: [bool; 2],
}

/// The programs of one connection: that of the opener's end, and the target.
struct Pair {
    programs: [Program; 2],
    is_over: [bool; 2],
    is_reset: bool,
}

#[derive(Default)]
struct Program {
    is_connected: bool,
    to_write: u64,
    written: u64,
    is_finished: bool,
    read: u64,
    has_read_end: bool,
}

const STEP: u64 = 1_000_000;
const STEPS_MAX: u64 = 100_000;

impl World {
    pub(crate) fn new(seed: u64, plan: Plan) -> Self {
        let limits = TunnelLimits { connections_max: 16, ..TunnelLimits::default() };
        let ends = [Mux::new(limits), Mux::new(limits)];
        let mut world = Self {
            seed,
            plan,
            rng: Rng::new(seed),
            now: 1,
            ends,
            lanes: BTreeMap::new(),
            next_lane: 0,
            programs: BTreeMap::new(),
            begun: 0,
            ended: Ended::default(),
            length: None,
        };
        world.lane_up();
        world.lane_up();
        world
    }

    pub(crate) fn run(mut self) -> Ended {
        for _ in 0..STEPS_MAX {
            self.now += STEP;
            self.begin();
            self.disturb();
            for end in 0..2 {
                self.ends[end].handle_time(self.now);
                self.deliver(end);
                self.events(end);
                self.work(end);
                self.events(end);
                self.transmit(end);
            }
            self.check();
            let all_begun = self.begun == self.plan.connections;
            // The word that it is over may still be on its way.
            let left = self.ends.iter().map(|end| end.connections().len()).sum::<usize>();
            if all_begun && left == 0 && self.programs.values().all(|pair| pair.is_over == [true, true]) {
                assert_eq!(self.ends[0].held_bytes() + self.ends[1].held_bytes(), 0, "seed {}", self.seed);
                return self.ended;
            }
        }
        let left: Vec<_> = self.ends.iter().map(Mux::connections).collect();
        panic!("seed {}: it does not end; connections are left: {left:?}", self.seed);
    }

    /// Connections begin one after the other, from either end.
    fn begin(&mut self) {
        if self.begun == self.plan.connections || !self.rng.one_in(3) {
            return;
        }
        self.begun += 1;
        let end = self.rng.below(2) as usize;
        let Ok(key) = self.ends[end].open(b"target:1", self.now) else {
            panic!("seed {}: there is room", self.seed)
        };
        let mut program = || {
            let random = if self.rng.one_in(4) { self.rng.below(400_000) } else { self.rng.below(2000) };
            Program { to_write: self.length.unwrap_or(random), ..Program::default() }
        };
        let mut programs = [program(), program()];
        programs[0].is_connected = true;
        self.programs.insert((end, key.number), Pair { programs, is_over: [false; 2], is_reset: false });
    }

    /// Lanes come and go; programs break off.
    fn disturb(&mut self) {
        if self.lanes.values().filter(|lane| lane.believed == [true, true]).count() < 2 && self.rng.one_in(40)
        {
            self.lane_up();
        }
        if self.ended.lanes_died < self.plan.deaths && self.rng.one_in(60) && !self.lanes.is_empty() {
            let at = self.rng.below(self.lanes.len() as u64) as usize;
            let lane = *self.lanes.keys().nth(at).expect("counted");
            let end = self.rng.below(2) as usize;
            self.lane_down(lane, end);
        }
        // Whoever has not noticed yet does so some time.
        let half_dead: Vec<_> =
            self.lanes.iter().filter(|(_, lane)| lane.believed != [true, true]).map(|(id, _)| *id).collect();
        for lane in half_dead {
            if self.rng.one_in(150) {
                self.lane_down(lane, 0);
                self.lane_down(lane, 1);
                self.lanes.remove(&lane);
            }
        }
        if self.plan.resets && self.rng.one_in(30) && !self.programs.is_empty() {
            let at = self.rng.below(self.programs.len() as u64) as usize;
            let (&(opener, number), pair) = self.programs.iter_mut().nth(at).expect("counted");
            let side = self.rng.below(2) as usize;
            if pair.programs[side].is_connected && !pair.is_over[side] {
                (pair.is_reset, pair.is_over[side]) = (true, true);
                let end = if side == 0 { opener } else { 1 - opener };
                let key = ConnectionKey { opener: side_opener(side), number };
                self.ends[end].reset(key, Code::Cancelled, "the program broke off");
                self.ended.broken += 1;
            }
        }
    }

    fn lane_up(&mut self) {
        let lane = TunnelLane(self.next_lane);
        self.next_lane += 1;
        self.ends[0].handle_lane_up(lane, LaneEnd::Dialled, 11, self.now);
        self.ends[1].handle_lane_up(lane, LaneEnd::Accepted, 12, self.now);
        self.lanes.insert(lane, Wire { towards: Default::default(), believed: [true, true] });
    }

    /// One end notices. Part of what it had sent still arrives, frame by frame, whatever the other end knows by then.
    fn lane_down(&mut self, lane: TunnelLane, end: usize) {
        let Some(wire) = self.lanes.get_mut(&lane) else { return };
        if !std::mem::take(&mut wire.believed[end]) {
            return;
        }
        wire.towards[end].clear();
        let kept = self.rng.below(wire.towards[1 - end].len() as u64 + 1) as usize;
        wire.towards[1 - end].truncate(kept);
        self.ends[end].handle_lane_down(lane, self.now);
        self.ended.lanes_died += 1;
    }

    /// Takes what has arrived at an end.
    fn deliver(&mut self, end: usize) {
        for (&lane, wire) in &mut self.lanes {
            if !wire.believed[end] {
                continue;
            }
            while wire.towards[end].front().is_some_and(|(at, _)| *at <= self.now) {
                let (_, bytes) = wire.towards[end].pop_front().expect("looked at");
                let frame = TunnelFrame::decode_front(&bytes).expect("our own").expect("whole");
                let result = self.ends[end].handle_frame(lane, &frame, self.now);
                assert_eq!(result, Ok(()), "seed {}", self.seed);
            }
        }
    }

    /// Frames onto the lanes, as far as each takes them at a time; each lane has its own, changing delay.
    fn transmit(&mut self, end: usize) {
        let mut bytes = [0; TUNNEL_HEADER_BYTES + TUNNEL_PAYLOAD_MAX];
        for (&lane, wire) in &mut self.lanes {
            for _ in 0..self.rng.below(24) {
                if !wire.believed[end] {
                    break;
                }
                let Some(length) = self.ends[end].poll_frame(lane, self.now, &mut bytes) else { break };
                let queue = &mut wire.towards[1 - end];
                let earliest = queue.back().map_or(0, |(at, _)| *at);
                let at = earliest.max(self.now + self.rng.below(30) * STEP);
                // What nobody will take any more is lost.
                if wire.believed[1 - end] {
                    queue.push_back((at, bytes[..length].to_vec()));
                }
            }
        }
    }

    fn events(&mut self, end: usize) {
        while let Some(event) = self.ends[end].poll_event() {
            match event {
                TunnelEvent::Asked { key, target } => {
                    assert_eq!(target, b"target:1");
                    let pair = self.programs.get_mut(&(1 - end, key.number)).expect("asked for");
                    assert!(!pair.programs[1].is_connected, "seed {}: connected twice", self.seed);
                    pair.programs[1].is_connected = true;
                    self.ends[end].accept(key);
                }
                TunnelEvent::Closed { key } => {
                    let (side, pair) = self.pair(end, key);
                    let program = &pair.programs[side];
                    assert!(program.is_finished && program.has_read_end);
                    pair.is_over[side] = true;
                }
                TunnelEvent::Reset { key, code, .. } | TunnelEvent::Refused { key, code, .. } => {
                    let seed = self.seed;
                    let (side, pair) = self.pair(end, key);
                    assert!(pair.is_reset, "seed {seed}: {key:?} at {end} broke off: {code:?}");
                    pair.is_over[side] = true;
                    if !pair.programs[1].is_connected {
                        // It was over before the target heard of it.
                        pair.is_over[1] = true;
                    }
                }
                TunnelEvent::Silent { lane } => {
                    if let Some(wire) = self.lanes.get_mut(&lane) {
                        wire.believed[end] = false;
                        wire.towards[end].clear();
                    }
                }
                TunnelEvent::Probed { .. } => panic!("seed {}: nobody asked", self.seed),
                TunnelEvent::Stale { .. } => panic!("seed {}: nobody was started again", self.seed),
                TunnelEvent::Opened { .. } | TunnelEvent::Readable { .. } | TunnelEvent::Writable { .. } => {}
            }
        }
    }

    fn pair(&mut self, end: usize, key: ConnectionKey) -> (usize, &mut Pair) {
        let (opener, side) = if key.opener == Opener::Local { (end, 0) } else { (1 - end, 1) };
        (side, self.programs.get_mut(&(opener, key.number)).expect("known"))
    }

    /// The programs at one end write, read and finish.
    fn work(&mut self, end: usize) {
        for (&(opener, number), pair) in &mut self.programs {
            let side = usize::from(opener != end);
            if pair.is_reset && side == 1 && !pair.programs[1].is_connected && pair.is_over[0] {
                pair.is_over[1] = true;
            }
            if pair.is_over[side] || !pair.programs[side].is_connected {
                continue;
            }
            let key = ConnectionKey { opener: side_opener(side), number };
            let (mux, program) = (&mut self.ends[end], &mut pair.programs[side]);
            let wish_max = if self.rng.one_in(3) { 100_000 } else { 50 };
            let wish = 1 + self.rng.below(wish_max);
            let count = wish.min(program.to_write - program.written);
            let bytes: Vec<u8> = (program.written..program.written + count)
                .map(|at| content(opener, number, side, at))
                .collect();
            program.written += mux.write(key, &bytes) as u64;
            if program.written == program.to_write && !program.is_finished && self.rng.one_in(4) {
                program.is_finished = true;
                mux.finish(key);
            }
            if self.plan.slow && !self.rng.one_in(12) {
                continue;
            }
            loop {
                let readable = mux.readable(key);
                if readable.is_empty() {
                    break;
                }
                let count = readable.len().min(1 + self.rng.below(90_000) as usize);
                for (&byte, at) in readable[..count].iter().zip(program.read..) {
                    let expected = content(opener, number, 1 - side, at);
                    assert_eq!(byte, expected, "seed {}: byte {at} of {key:?} at {end}", self.seed);
                }
                program.read += count as u64;
                mux.consume(key, count);
            }
            if mux.take_end(key) {
                program.has_read_end = true;
                let other = pair.programs[1 - side].to_write;
                assert_eq!(pair.programs[side].read, other, "seed {}: the end came early", self.seed);
            }
        }
    }

    fn check(&mut self) {
        for end in &self.ends {
            // A receive window and as much that was sent, for each connection.
            let most = self.programs.len() as u64 * 2 * (TunnelLimits::default().window_max + 100_000);
            assert!(end.held_bytes() <= most, "seed {}: {} bytes", self.seed, end.held_bytes());
            self.ended.held_max = self.ended.held_max.max(end.held_bytes());
        }
    }
}

fn side_opener(side: usize) -> Opener {
    if side == 0 { Opener::Local } else { Opener::Peer }
}

/// Every byte of every stream is known.
fn content(opener: usize, number: u32, side: usize, at: u64) -> u8 {
    let mixed = (at ^ u64::from(number) << 40 ^ (opener as u64) << 60 ^ (side as u64) << 61)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}
