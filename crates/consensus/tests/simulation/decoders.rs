//! Hostile bytes: real messages and records, changed by a seed, into real replicas. Nothing panics, nothing grows, and
//! whatever decodes encodes to the same bytes again.
use std::sync::Arc;

use dwcp_consensus::{
    Anchor, Config, Digest, EpochParts, Epochs, Input, Key, Output, Plan, ProtocolKind, Replica, ReplicaId,
    Start, Time, reencoded,
};

use crate::node::Seat;
use crate::rng::Rng;
use crate::scenario::Scenario;
use crate::world::World;

/// Changed messages of each protocol in an ordinary run.
const CHANGES: u64 = 40_000;

/// What a run left: messages by kind, and a replica's records.
struct Sample {
    messages: Vec<Arc<[u8]>>,
    records: Vec<(Key, Vec<u8>)>,
    config: Config,
}

/// Messages of every kind, from runs with every kind of trouble.
fn sample(protocol: ProtocolKind) -> Sample {
    let mut messages = Vec::new();
    let mut records = Vec::new();
    for seed in 0..12 {
        let mut rng = Rng::new(seed);
        let mut scenario = Scenario::new(protocol, &mut rng);
        scenario.replicas = 4;
        scenario.liars.clear();
        scenario.forgetful = vec![3];
        scenario.transactions = 20;
        if protocol == ProtocolKind::ProBft {
            scenario = scenario.with_few_samples(&mut rng);
        }
        // In the last ones epochs end, so that what is said about that is among the messages.
        let switches = seed >= 9;
        if switches {
            scenario = scenario.with_switches(&mut rng);
        }
        let mut world = World::new(scenario, rng);
        world.tap = Some(Vec::new());
        let left = world.run_and_look();
        messages.extend(left.0);
        if !switches {
            records = left.1;
        }
    }
    let mut rng = Rng::new(0);
    let mut scenario = Scenario::new(protocol, &mut rng);
    scenario.replicas = 4;
    let mut config = Config::of_plan(ReplicaId(1), &scenario.plan(), Digest::default(), Digest([9; 32]))
        .expect("a sound plan");
    config.checkpoint_interval = 4;
    config.sampling = scenario.with_few_samples(&mut rng).sampling;
    Sample { messages, records, config }
}

fn replica(protocol: ProtocolKind, config: &Config, start_with: Start) -> Option<Box<dyn Replica>> {
    let plan = Plan { protocol, ..config.plan.clone() };
    let anchor = Anchor { plan, position: 0, origin: Digest::default() };
    let maker = Box::new(Seat::honest(config.clone()));
    let parts = EpochParts { me: config.me, maker, anchor, start: start_with };
    let replica = Epochs::start(parts, 0).ok()?;
    Some(Box::new(replica))
}

/// One change of the kinds that break decoders: bits, lengths, cuts, and ends of other messages.
fn change(bytes: &[u8], other: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..rng.between(1, 3) {
        let at = rng.below(bytes.len().max(1) as u64) as usize;
        match rng.below(6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << rng.below(8),
            1 if !bytes.is_empty() => bytes[at] = rng.pick(&[0, 1, 0x7f, 0x80, 0xff]),
            2 => bytes.truncate(at),
            3 => bytes.insert(at.min(bytes.len()), rng.next_u64() as u8),
            4 if bytes.len() >= at + 4 => {
                let length = rng.pick(&[0_u32, 1, 1024, 1025, 65_537, u32::MAX]);
                bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
            }
            _ => {
                bytes.truncate(at);
                let from = rng.below(other.len().max(1) as u64) as usize;
                bytes.extend_from_slice(other.get(from..).unwrap_or_default());
            }
        }
    }
    bytes
}

fn drain(replica: &mut dyn Replica, now: Time) {
    while let Some(output) = replica.poll_output() {
        if let Output::TakeSnapshot { position } = output {
            replica.handle(now, Input::Snapshot { position, state: [0; 40][..].into() });
        }
    }
}

fn survives_changed_messages(protocol: ProtocolKind) {
    let sample = sample(protocol);
    let mut kinds: Vec<_> = sample.messages.iter().map(|bytes| (bytes[8], bytes[9])).collect();
    kinds.sort_unstable();
    kinds.dedup();
    println!("{protocol:?}: {} messages of {} kinds", sample.messages.len(), kinds.len());
    let mut rng = Rng::new(super::number("DWCP_CONSENSUS_SEED", 1));
    let mut replica = replica(protocol, &sample.config, Start::Fresh).expect("a fresh replica starts");
    let (mut decoded, mut now) = (0_u64, 0);
    let changes = super::number("DWCP_CONSENSUS_CHANGES", CHANGES);
    for _ in 0..changes {
        let pick = |rng: &mut Rng| rng.below(sample.messages.len() as u64) as usize;
        let (message, other) = (&sample.messages[pick(&mut rng)], &sample.messages[pick(&mut rng)]);
        let bytes = if rng.chance(100) { message.to_vec() } else { change(message, other, &mut rng) };
        if let Some(again) = reencoded(protocol, &bytes) {
            assert_eq!(again, bytes, "one value, one encoding");
            decoded += 1;
        }
        now += rng.below(20_000_000);
        let from = ReplicaId(rng.pick(&[0, 2, 3, 1, 4, u16::MAX]));
        replica.handle(now, Input::Message { from, bytes: &bytes });
        drain(replica.as_mut(), now);
        let figures = replica.figures();
        assert!(
            figures.log_length <= 2000 && figures.put_aside <= 2000 && figures.batches <= 1024,
            "{figures:?}"
        );
    }
    assert!(decoded > changes / 20, "most changes are seen by decoders of fields: {decoded}");
    assert!(replica.figures().refused > changes / 4);
}

fn survives_changed_records(protocol: ProtocolKind) {
    let sample = sample(protocol);
    let mut rng = Rng::new(super::number("DWCP_CONSENSUS_SEED", 1));
    assert!(
        replica(protocol, &sample.config, Start::Resume(sample.records.clone())).is_some(),
        "sound records"
    );
    let (mut started, mut corrupt) = (0, 0);
    for _ in 0..super::number("DWCP_CONSENSUS_CHANGES", CHANGES) / 100 {
        let mut records = sample.records.clone();
        let chosen = rng.below(records.len() as u64) as usize;
        let other = records[rng.below(sample.records.len() as u64) as usize].1.clone();
        records[chosen].1 = change(&records[chosen].1, &other, &mut rng);
        match replica(protocol, &sample.config, Start::Resume(records)) {
            Some(mut replica) => {
                drain(replica.as_mut(), 0);
                started += 1;
            }
            None => corrupt += 1,
        }
    }
    println!("{protocol:?}: {corrupt} corrupt, {started} started");
    assert!(corrupt > started / 4, "damage is seen");
}

#[test]
fn changed_messages_do_no_harm() {
    super::PROTOCOLS.into_iter().for_each(survives_changed_messages);
}

#[test]
fn changed_records_do_no_harm() {
    super::PROTOCOLS.into_iter().for_each(survives_changed_records);
}
