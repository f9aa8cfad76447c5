//! What the cluster agrees on: members, protocol, and a map of values. Applied in the order that consensus decides, the
//! same at every member; it reads no clock and knows nothing of this node.
use std::collections::BTreeMap;

use dwcp_abi::codec::{CodecError, Encoded, Reader, Writer};
use dwcp_abi::wire::{
    ClusterAbout, REPLICATED_KEY_BYTES_MAX, REPLICATED_VALUE_BYTES_MAX, ReplicatedCommand, ReplicatedFact,
    ReplicatedNode, ReplicatedProtocol, ReplicatedPut, ReplicatedSeat, ReplicatedValue,
};
use dwcp_consensus::{Ed25519, Member, Plan, ProtocolKind, REPLICAS_MAX, ReplicaId, Rotation};

/// The state after some position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) protocol: ProtocolKind,
    pub(super) rotation: Option<Rotation>,
    pub(super) members: BTreeMap<ReplicaId, Member>,
    pub(super) values: BTreeMap<String, Value>,
}

/// One replicated value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) bytes: Vec<u8>,
    /// The position that set it last.
    pub(crate) version: u64,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done, at this position.
    Done(u64),
    /// Admitted under this number.
    Admitted(ReplicaId),
    /// The value has another version than was expected.
    Changed(u64),
    /// It cannot be done.
    Impossible(&'static str),
}

/// Most replicated values.
const VALUES_MAX: usize = 10_000;

impl State {
    /// The state before the first command of a cluster.
    pub(super) fn of_plan(plan: &Plan) -> Self {
        let members = plan.members.iter().map(|member| (member.replica, member.clone())).collect();
        Self { protocol: plan.protocol, rotation: plan.rotation, members, values: BTreeMap::new() }
    }

    /// Applies the command of a position.
    pub(super) fn apply(&mut self, position: u64, bytes: &[u8]) -> Outcome {
        match ReplicatedCommand::decode(bytes) {
            Ok(ReplicatedCommand::Pass(_)) => Outcome::Done(position),
            Ok(ReplicatedCommand::Put(put)) => self.put(position, &put),
            Ok(ReplicatedCommand::Delete(key)) => {
                let removed = std::str::from_utf8(key).ok().and_then(|key| self.values.remove(key));
                removed.map_or(Outcome::Impossible("there is no such value"), |_| Outcome::Done(position))
            }
            Ok(ReplicatedCommand::Admit(node)) => self.admit(&node),
            Ok(ReplicatedCommand::Remove(replica)) => self.remove(position, ReplicaId(replica)),
            Ok(ReplicatedCommand::Protocol(wanted)) => self.set_protocol(position, wanted),
            Err(_) => Outcome::Impossible("no member knows this command"),
        }
    }

    fn put(&mut self, position: u64, put: &ReplicatedPut<'_>) -> Outcome {
        let Some(key) = key(put.key) else { return Outcome::Impossible("this is no key") };
        if put.value.len() > REPLICATED_VALUE_BYTES_MAX {
            return Outcome::Impossible("the value is too long");
        }
        let version = self.values.get(key).map_or(0, |value| value.version);
        if put.expected != u64::MAX && put.expected != version {
            return Outcome::Changed(version);
        }
        if version == 0 && self.values.len() >= VALUES_MAX {
            return Outcome::Impossible("there are as many values as may be");
        }
        self.values.insert(key.to_owned(), Value { bytes: put.value.to_vec(), version: position });
        Outcome::Done(position)
    }

    /// A node that is a member already gets its number again, with its new keys: it lost the old ones.
    fn admit(&mut self, node: &ReplicatedNode<'_>) -> Outcome {
        let Ok(about) = ClusterAbout::decode(node.about) else {
            return Outcome::Impossible("no member understands what the node says of itself");
        };
        if !Ed25519::are_keys(&(node.signing, node.random)) {
            return Outcome::Impossible("these are no public keys");
        }
        let fingerprint =
            |member: &Member| ClusterAbout::decode(&member.about).map(|about| about.fingerprint);
        let known = self.members.values().find(|member| fingerprint(member) == Ok(about.fingerprint));
        let is_named =
            |member: &Member| ClusterAbout::decode(&member.about).is_ok_and(|other| other.name == about.name);
        if known.is_none() && self.members.values().any(is_named) {
            return Outcome::Impossible("another member has this name");
        }
        let free =
            || (0..REPLICAS_MAX as u16).map(ReplicaId).find(|number| !self.members.contains_key(number));
        let Some(replica) = known.map(|member| member.replica).or_else(free) else {
            return Outcome::Impossible("there are as many members as may be");
        };
        let member = Member { replica, keys: (node.signing, node.random), about: node.about.into() };
        let mut members: Vec<Member> = self.members.values().cloned().collect();
        members.retain(|other| other.replica != replica);
        members.push(member.clone());
        members.sort_by_key(|member| member.replica);
        if Plan::composed(0, self.protocol, members, self.rotation).is_none() {
            return Outcome::Impossible("no epoch can be made with this member");
        }
        self.members.insert(replica, member);
        Outcome::Admitted(replica)
    }

    fn remove(&mut self, position: u64, replica: ReplicaId) -> Outcome {
        if self.members.len() == 1 {
            return Outcome::Impossible("the last member cannot go");
        }
        let removed = self.members.remove(&replica);
        removed.map_or(Outcome::Impossible("there is no such member"), |_| Outcome::Done(position))
    }

    fn set_protocol(&mut self, position: u64, wanted: ReplicatedProtocol) -> Outcome {
        let protocol = ProtocolKind::ALL.into_iter().find(|kind| *kind as u8 == wanted.protocol);
        let Some(protocol) = protocol else { return Outcome::Impossible("no member knows this protocol") };
        let rotation = Rotation { positions: wanted.positions, seats: wanted.seats };
        let rotation = (protocol == ProtocolKind::TPbft).then_some(rotation);
        let members = self.members.values().cloned().collect();
        if Plan::composed(0, protocol, members, rotation).is_none() {
            return Outcome::Impossible("this protocol needs positions and seats for its committees");
        }
        (self.protocol, self.rotation) = (protocol, rotation);
        Outcome::Done(position)
    }

    /// The plan of the next epoch, where the present one is not what the state wants.
    pub(super) fn wanted(&self, present: &Plan) -> Option<Plan> {
        let members: Vec<Member> = self.members.values().cloned().collect();
        let is_so = present.protocol == self.protocol
            && present.rotation == self.rotation
            && present.members == members;
        if is_so { None } else { Plan::composed(present.epoch + 1, self.protocol, members, self.rotation) }
    }

    /// All facts, one behind the other.
    pub(super) fn snapshot(&self) -> Vec<u8> {
        let rotation = self.rotation.unwrap_or(Rotation { positions: 0, seats: 0 });
        let protocol = ReplicatedProtocol {
            protocol: self.protocol as u8,
            positions: rotation.positions,
            seats: rotation.seats,
        };
        let mut bytes = fact(&ReplicatedFact::Protocol(protocol));
        for member in self.members.values() {
            let (signing, random) = member.keys;
            let node = ReplicatedNode { signing, random, about: &member.about };
            bytes.extend(fact(&ReplicatedFact::Seat(ReplicatedSeat { replica: member.replica.0, node })));
        }
        for (key, value) in &self.values {
            let value = ReplicatedValue { key: key.as_bytes(), version: value.version, value: &value.bytes };
            bytes.extend(fact(&ReplicatedFact::Value(value)));
        }
        bytes
    }

    /// A state from its facts.
    ///
    /// # Errors
    /// Where they are none.
    pub(super) fn from_snapshot(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut state = Self {
            protocol: ProtocolKind::Pbft,
            rotation: None,
            members: BTreeMap::new(),
            values: BTreeMap::new(),
        };
        let mut reader = Reader::new(bytes);
        while reader.remaining() > 0 {
            match ReplicatedFact::read(&mut reader)? {
                ReplicatedFact::Protocol(wanted) => {
                    let known = ProtocolKind::ALL.into_iter().find(|kind| *kind as u8 == wanted.protocol);
                    let unknown =
                        CodecError::Unknown { field: "protocol", value: u64::from(wanted.protocol) };
                    state.protocol = known.ok_or(unknown)?;
                    let rotation = Rotation { positions: wanted.positions, seats: wanted.seats };
                    state.rotation = (state.protocol == ProtocolKind::TPbft).then_some(rotation);
                }
                ReplicatedFact::Seat(seat) => {
                    let replica = ReplicaId(seat.replica);
                    let keys = (seat.node.signing, seat.node.random);
                    state.members.insert(replica, Member { replica, keys, about: seat.node.about.into() });
                }
                ReplicatedFact::Value(value) => {
                    let key = key(value.key).unwrap_or_default().to_owned();
                    let value = Value { bytes: value.value.to_vec(), version: value.version };
                    state.values.insert(key, value);
                }
            }
        }
        Ok(state)
    }
}

/// A key as text, where it may be one.
fn key(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    is_key(text).then_some(text)
}

/// Whether text may be the key of a value: letters, digits and `._-/`.
pub(crate) fn is_key(text: &str) -> bool {
    let usable = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    (1..=REPLICATED_KEY_BYTES_MAX).contains(&text.len()) && text.chars().all(usable)
}

fn fact(fact: &ReplicatedFact<'_>) -> Vec<u8> {
    let mut bytes = vec![0; FACT_BYTES_MAX];
    let mut writer = Writer::new(&mut bytes);
    // Nothing gets into a state that is longer than its place.
    let length = fact.write(&mut writer).map_or(0, |()| writer.written());
    bytes.truncate(length);
    bytes
}

/// A key, a value, and what stands around them.
const FACT_BYTES_MAX: usize = REPLICATED_VALUE_BYTES_MAX + 2048;

#[cfg(test)]
mod tests {
    use super::*;

    fn about(number: u8) -> Vec<u8> {
        let name = format!("node-{number}");
        let about = ClusterAbout {
            fingerprint: [number; 32],
            name: name.as_bytes(),
            address: b"127.0.0.1:1",
            region: b"",
        };
        let mut bytes = [0; 512];
        let length = about.encode(&mut bytes).unwrap();
        bytes[..length].to_vec()
    }

    fn command(command: &ReplicatedCommand<'_>) -> Vec<u8> {
        let mut bytes = vec![0; 16 << 10];
        let length = command.encode(&mut bytes).unwrap();
        bytes.truncate(length);
        bytes
    }

    fn state() -> State {
        let member = Member { replica: ReplicaId(0), keys: ([0; 32], [0; 32]), about: about(0).into() };
        State::of_plan(&Plan::composed(0, ProtocolKind::Pbft, vec![member], None).unwrap())
    }

    fn admit(state: &mut State, number: u8) -> Outcome {
        let about = about(number);
        let (signing, random) = Ed25519::public_keys(&[number; 32], &[number; 32]).unwrap();
        let node = ReplicatedNode { signing, random, about: &about };
        state.apply(1, &command(&ReplicatedCommand::Admit(node)))
    }

    #[test]
    fn values_are_set_by_version_and_removed() {
        let mut state = state();
        let put =
            |expected| command(&ReplicatedCommand::Put(ReplicatedPut { key: b"a/b", value: b"1", expected }));
        assert_eq!(state.apply(5, &put(0)), Outcome::Done(5));
        assert_eq!(state.apply(6, &put(0)), Outcome::Changed(5));
        assert_eq!(state.apply(7, &put(5)), Outcome::Done(7));
        assert_eq!(state.apply(8, &put(u64::MAX)), Outcome::Done(8));
        assert_eq!(state.apply(9, &command(&ReplicatedCommand::Delete(b"a/b"))), Outcome::Done(9));
        assert!(matches!(state.apply(9, b"\xff"), Outcome::Impossible(_)));
    }

    #[test]
    fn members_get_the_lowest_free_number_and_keep_it_with_new_keys() {
        let mut state = state();
        let first = Plan::composed(0, ProtocolKind::Pbft, state.members.values().cloned().collect(), None);
        assert_eq!(state.wanted(&first.clone().unwrap()), None);
        assert_eq!(admit(&mut state, 1), Outcome::Admitted(ReplicaId(1)));
        assert_eq!(admit(&mut state, 2), Outcome::Admitted(ReplicaId(2)));
        assert_eq!(admit(&mut state, 1), Outcome::Admitted(ReplicaId(1)));
        assert_eq!(state.apply(3, &command(&ReplicatedCommand::Remove(1))), Outcome::Done(3));
        assert_eq!(admit(&mut state, 7), Outcome::Admitted(ReplicaId(1)));
        let plan = state.wanted(&first.unwrap()).unwrap();
        assert_eq!((plan.epoch, plan.committee.len()), (1, 3));
    }

    #[test]
    fn a_state_comes_back_from_its_snapshot() {
        let mut state = state();
        admit(&mut state, 1);
        let put = ReplicatedPut { key: b"x", value: &[7; REPLICATED_VALUE_BYTES_MAX], expected: 0 };
        state.apply(2, &command(&ReplicatedCommand::Put(put)));
        let protocol = ReplicatedProtocol { protocol: ProtocolKind::TPbft as u8, positions: 9, seats: 4 };
        state.apply(3, &command(&ReplicatedCommand::Protocol(protocol)));
        let snapshot = state.snapshot();
        assert_eq!(State::from_snapshot(&snapshot), Ok(state));
        assert!(State::from_snapshot(&snapshot[..snapshot.len() - 1]).is_err());
    }
}
