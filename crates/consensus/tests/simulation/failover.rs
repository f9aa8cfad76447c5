//! How long a Raft cluster orders nothing after its leader stopped: three replicas on a quiet network, at usual settings.
use std::collections::BTreeMap;
use std::sync::Arc;

use dwcp_consensus::{
    Config, Digest, Input, MILLISECOND, Member, Output, Parts, Plan, ProtocolKind, Replica, ReplicaId, Start,
    Time, TransactionId, start,
};

use crate::keys::{Signings, SimulatedKeys, payload};

struct Three {
    now: Time,
    replicas: Vec<Option<Box<dyn Replica>>>,
    /// By time of arrival.
    messages: BTreeMap<(Time, u64), Letter>,
    count: u64,
    /// When something was applied last, and who said that it lives.
    applied: Time,
    heard: [u64; 3],
    submitted: u64,
}

/// From whom, to whom, what.
type Letter = (ReplicaId, ReplicaId, Arc<[u8]>);

const DELAY: Time = MILLISECOND;

impl Three {
    fn new() -> Self {
        let member =
            |number| Member { replica: ReplicaId(number), keys: Default::default(), about: Arc::from([]) };
        let plan = Plan::composed(0, ProtocolKind::Raft, (0..3).map(member).collect(), None).expect("sound");
        let replica = |number| {
            let me = ReplicaId(number);
            let config = Config::of_plan(me, &plan, Digest::default(), Digest::default()).expect("sound");
            let crypto = Box::new(SimulatedKeys::new(me, Signings::default()));
            let parts = Parts { config, crypto, start: Start::Fresh, origin: None };
            Some(start(ProtocolKind::Raft, parts, 0).expect("starts"))
        };
        let replicas = (0..3).map(replica).collect();
        Self {
            now: 0,
            replicas,
            messages: BTreeMap::new(),
            count: 0,
            applied: 0,
            heard: [0; 3],
            submitted: 0,
        }
    }

    fn drain(&mut self, at: usize) {
        let Some(replica) = self.replicas[at].as_mut() else { return };
        while let Some(output) = replica.poll_output() {
            match output {
                Output::Send { to, bytes } => {
                    self.count += 1;
                    // An append, of the protocol's own messages: only leaders send them.
                    self.heard[at] += u64::from(bytes[8..10] == [1, 0]);
                    self.messages.insert((self.now + DELAY, self.count), (ReplicaId(at as u16), to, bytes));
                }
                Output::Apply(_) => self.applied = self.now,
                Output::TakeSnapshot { position } => {
                    replica.handle(self.now, Input::Snapshot { position, state: [0; 8][..].into() });
                }
                _ => {}
            }
        }
    }

    fn run(&mut self, until: Time) {
        while self.now < until {
            self.now += MILLISECOND;
            while let Some(first) = self.messages.first_entry().filter(|first| first.key().0 <= self.now) {
                let (from, to, bytes) = first.remove();
                let at = usize::from(to.0);
                if let Some(replica) = self.replicas[at].as_mut() {
                    replica.handle(self.now, Input::Message { from, bytes: &bytes });
                }
                self.drain(at);
            }
            for at in 0..3 {
                let Some(replica) = self.replicas[at].as_mut() else { continue };
                if (self.now / MILLISECOND).is_multiple_of(20) {
                    self.submitted += 1;
                    let transaction = TransactionId { client: at as u64 + 1, sequence: self.submitted };
                    replica.handle(self.now, Input::Submit { transaction, payload: &payload(transaction) });
                }
                if replica.poll_timeout() <= self.now {
                    replica.handle(self.now, Input::Tick);
                }
                self.drain(at);
            }
        }
    }

    fn leader(&mut self) -> usize {
        self.heard = [0; 3];
        self.run(self.now + 300 * MILLISECOND);
        (0..3).max_by_key(|at| self.heard[*at]).expect("three")
    }
}

#[test]
fn a_dead_raft_leader_is_replaced_within_two_election_timeouts() {
    let timeout = Config::new(ReplicaId(0), 3, Digest::default()).expect("sound").leader_timeout;
    let mut gaps = Vec::new();
    for round in 0..40_u64 {
        let mut three = Three::new();
        three.run((3000 + 37 * round) * MILLISECOND);
        let leader = three.leader();
        three.replicas[leader] = None;
        let (died, before) = (three.now, three.applied);
        assert!(before + 100 * MILLISECOND > died, "it orders while the leader lives");
        let end = died + 4 * timeout;
        // What was under way when it died comes through within a few hops.
        three.run(died + 50 * MILLISECOND);
        let mut last = three.applied;
        while three.applied == last && three.now < end {
            last = three.applied;
            let next = three.now + MILLISECOND;
            three.run(next);
        }
        gaps.push((three.applied - died) / MILLISECOND);
    }
    gaps.sort_unstable();
    println!("ms without a leader: least {}, middle {}, most {}", gaps[0], gaps[20], gaps[39]);
    assert!(gaps[39] * MILLISECOND < 2 * timeout, "{gaps:?}");
}
