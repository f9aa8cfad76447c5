//! Writes the tables that classes are chosen by, the policy of each class, and the guard's rules. Flows run meanwhile:
//! entries are changed one by one, and the generation is raised at the end.
use std::collections::BTreeMap;
use std::hash::Hash;
use std::net::IpAddr;

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, MapError},
};
use dwcp_abi::bpf::{
    CGROUPS_MAP, Class, ClassPolicyWords, DSCP_LENGTH, DSCP_MAP, FQ_LENGTH, FQ_MAP, GUARD_MAP, GuardRules,
    GuardRulesWords, KNOWN_LENGTH, KNOWN_MAP, MARKS_MAP, MORE_KNOWN_LENGTH_MAX, MORE_KNOWN_MAP, POLICY_MAP,
    PORT_OWN, PORTS_LENGTH, PORTS_MAP, SELECTORS_LENGTH_MAX, SWITCH_MAP, SwitchWords, TUPLES_MAP,
    USES_CGROUPS, USES_DEPARTURE, USES_DSCP, USES_MARKS, USES_TUPLES, address_words, fq_slot, known_slots,
    mapped, port_place,
};

use super::{Policy, Selector, Unavailable, cgroup};

/// What the tables are to hold.
#[derive(Debug, Default)]
struct Wanted {
    /// Words of eight ports.
    ports: BTreeMap<u32, u64>,
    marks: BTreeMap<u32, u32>,
    cgroups: BTreeMap<u64, u32>,
    tuples: BTreeMap<[u32; 10], u32>,
    dscp: BTreeMap<u32, u32>,
}

impl Wanted {
    fn set_port(&mut self, protocol: u8, port: u16, value: u8) {
        let (word, shift) = port_place(protocol, port);
        let word = self.ports.entry(word).or_default();
        *word = *word & !(0xff << shift) | u64::from(value) << shift;
    }
}

/// Words of [`PORTS_MAP`] that hold anything, as they were last written; `None` = an earlier life's, unknown.
pub(super) type Ports = Option<BTreeMap<u32, u64>>;

/// Writes everything that `policy` says; `own` are the ports that the node's lanes use. Gives back what could not be
/// taken, one line each.
///
/// # Errors
/// [`Unavailable::Map`], which says that the object is of another version.
pub(super) fn write(
    ebpf: &mut Ebpf,
    policy: &Policy,
    own: &[(u16, Class)],
    ports: &mut Ports,
) -> Result<Vec<String>, Unavailable> {
    let (wanted, complaints) = gather(policy, own);
    match ports.take() {
        Some(before) => {
            for &word in before.keys().chain(wanted.ports.keys()) {
                set(ebpf, PORTS_MAP, word, wanted.ports.get(&word).copied().unwrap_or(0))?;
            }
        }
        None => fill(ebpf, PORTS_MAP, &wanted.ports, PORTS_LENGTH)?,
    }
    *ports = Some(wanted.ports.clone());
    replace(ebpf, MARKS_MAP, &wanted.marks, SELECTORS_LENGTH_MAX)?;
    replace(ebpf, CGROUPS_MAP, &wanted.cgroups, SELECTORS_LENGTH_MAX)?;
    replace(ebpf, TUPLES_MAP, &wanted.tuples, SELECTORS_LENGTH_MAX)?;
    for code in 0..DSCP_LENGTH {
        set(ebpf, DSCP_MAP, code, wanted.dscp.get(&code).copied().unwrap_or(Class::Other.number()))?;
    }
    for (class, policy) in Class::ALL.into_iter().zip(&policy.classes) {
        let words: ClassPolicyWords = policy.words();
        set(ebpf, POLICY_MAP, class.number(), words)?;
    }
    let uses = uses(&wanted, policy);
    let table: Array<_, SwitchWords> = open(SWITCH_MAP, ebpf.map(SWITCH_MAP))?;
    let [_, generation] = table.get(&0, 0).map_err(|error| map_error(SWITCH_MAP, &error))?;
    set::<SwitchWords>(ebpf, SWITCH_MAP, 0, [uses, generation.wrapping_add(1)])?;
    Ok(complaints)
}

/// Writes what the guard is to do; a port of 0 switches it off.
///
/// # Errors
/// [`Unavailable::Map`].
pub(super) fn write_guard(ebpf: &mut Ebpf, rules: &GuardRules) -> Result<(), Unavailable> {
    let words: GuardRulesWords = rules.words();
    set(ebpf, GUARD_MAP, 0, words)
}

/// Writes whom the guard never holds back; how many of them have to be looked for in the second table.
///
/// # Errors
/// [`Unavailable::Map`].
pub(super) fn write_known(ebpf: &mut Ebpf, known: impl Iterator<Item = IpAddr>) -> Result<u64, Unavailable> {
    let (slots, more) = place(known.map(words));
    // First the second table: no address is in neither for a moment.
    replace(ebpf, MORE_KNOWN_MAP, &more, MORE_KNOWN_LENGTH_MAX)?;
    fill(ebpf, KNOWN_MAP, &slots, KNOWN_LENGTH)?;
    Ok(more.len() as u64)
}

/// Each address in one of its two slots while there is room, the rest beside them.
fn place(known: impl Iterator<Item = [u32; 4]>) -> (BTreeMap<u32, [u32; 4]>, BTreeMap<[u32; 4], u32>) {
    let (mut slots, mut more) = (BTreeMap::new(), BTreeMap::new());
    for address in known.filter(|address| *address != [0; 4]) {
        match known_slots(&address).into_iter().find(|slot| !slots.contains_key(slot)) {
            Some(slot) => drop(slots.insert(slot, address)),
            None => drop(more.insert(address, 1)),
        }
    }
    (slots, more)
}

/// Writes which interfaces keep departure times.
///
/// # Errors
/// [`Unavailable::Map`].
pub(super) fn write_fq(ebpf: &mut Ebpf, interfaces: impl Iterator<Item = u32>) -> Result<(), Unavailable> {
    let slots = interfaces.map(|index| (fq_slot(index), index)).collect();
    fill(ebpf, FQ_MAP, &slots, FQ_LENGTH)
}

/// An address as the tables hold it.
pub(super) fn words(address: IpAddr) -> [u32; 4] {
    match address.to_canonical() {
        IpAddr::V4(address) => mapped(u32::from_ne_bytes(address.octets())),
        IpAddr::V6(address) => address_words(address.octets()),
    }
}

fn gather(policy: &Policy, own: &[(u16, Class)]) -> (Wanted, Vec<String>) {
    let (mut wanted, mut complaints) = (Wanted::default(), Vec::new());
    for (class, selector) in &policy.selectors {
        let number = class.number();
        match selector {
            Selector::Port { protocol, port } => wanted.set_port(*protocol, *port, number as u8),
            Selector::Dscp(code) => {
                wanted.dscp.insert(u32::from(*code), number);
            }
            Selector::Mark(mark) => {
                wanted.marks.insert(*mark, number);
            }
            Selector::Connection(key) => {
                wanted.tuples.insert(key.words(), number);
            }
            Selector::Cgroup(path) => match cgroup_id(path) {
                Ok(id) => {
                    wanted.cgroups.insert(id, number);
                }
                Err(complaint) => complaints.push(complaint),
            },
        }
    }
    for &(port, class) in own {
        wanted.set_port(PROTOCOL_TCP, port, class.number() as u8 | PORT_OWN);
    }
    (wanted, complaints)
}

fn cgroup_id(path: &std::path::Path) -> Result<u64, String> {
    let directory = cgroup::directory(Some(path))?;
    cgroup::id(&directory).map_err(|error| format!("cgroup {}: {error}", directory.display()))
}

fn uses(wanted: &Wanted, policy: &Policy) -> u64 {
    let departure = policy.classes.iter().any(|class| class.peer_bytes_per_s > 0);
    [
        (!wanted.tuples.is_empty(), USES_TUPLES),
        (!wanted.marks.is_empty(), USES_MARKS),
        (!wanted.cgroups.is_empty(), USES_CGROUPS),
        (!wanted.dscp.is_empty(), USES_DSCP),
        (departure, USES_DEPARTURE),
    ]
    .into_iter()
    .filter_map(|(is_used, bit)| is_used.then_some(bit))
    .sum()
}

/// Makes a hash hold exactly `wanted`; what lies beyond `max` is left out, with a warning.
fn replace<K: Pod + Ord + Hash, V: Pod>(
    ebpf: &mut Ebpf,
    name: &'static str,
    wanted: &BTreeMap<K, V>,
    max: u32,
) -> Result<(), Unavailable> {
    let fail = |error: &MapError| map_error(name, error);
    if wanted.len() > max as usize {
        tracing::warn!(map = name, entries = wanted.len(), max, "more entries than the table holds");
    }
    let mut table: HashMap<_, K, V> = open(name, ebpf.map_mut(name))?;
    let old: Vec<K> = table.keys().filter_map(Result::ok).take(max as usize).collect();
    for key in old.into_iter().filter(|old| !wanted.contains_key(old)) {
        table.remove(&key).map_err(|error| fail(&error))?;
    }
    for (key, value) in wanted.iter().take(max as usize) {
        table.insert(key, value, 0).map_err(|error| fail(&error))?;
    }
    Ok(())
}

/// Makes an array hold exactly `wanted`, and zero elsewhere.
fn fill<V: Pod + Default + PartialEq>(
    ebpf: &mut Ebpf,
    name: &'static str,
    wanted: &BTreeMap<u32, V>,
    length: u32,
) -> Result<(), Unavailable> {
    let fail = |error: &MapError| map_error(name, error);
    let mut table: Array<_, V> = open(name, ebpf.map_mut(name))?;
    for index in 0..length {
        let value = wanted.get(&index).copied().unwrap_or_default();
        // Reading is as cheap as writing, and leaves what packets look at in their processors' caches.
        if table.get(&index, 0).map_err(|error| fail(&error))? != value {
            table.set(index, value, 0).map_err(|error| fail(&error))?;
        }
    }
    Ok(())
}

fn set<V: Pod>(ebpf: &mut Ebpf, name: &'static str, index: u32, value: V) -> Result<(), Unavailable> {
    let mut table: Array<_, V> = open(name, ebpf.map_mut(name))?;
    table.set(index, value, 0).map_err(|error| map_error(name, &error))
}

/// A map as its type, or why not.
pub(super) fn open<M, T>(name: &'static str, map: Option<M>) -> Result<T, Unavailable>
where
    T: TryFrom<M, Error = MapError>,
{
    let map = map.ok_or_else(|| Unavailable::Map { map: name, detail: "not in this object".into() })?;
    T::try_from(map).map_err(|error| map_error(name, &error))
}

pub(super) fn map_error(map: &'static str, error: &MapError) -> Unavailable {
    Unavailable::Map { map, detail: super::first_line(error) }
}

const PROTOCOL_TCP: u8 = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use dwcp_abi::bpf::ClassPolicy;

    #[test]
    fn own_ports_keep_their_mark_whatever_the_policy_says() {
        let port = Selector::Port { protocol: 6, port: 9000 };
        let policy = Policy { selectors: vec![(Class::Control, port)], ..Policy::default() };
        let (wanted, complaints) = gather(&policy, &[(9000, Class::Bulk)]);
        let (word, shift) = port_place(6, 9000);
        assert_eq!(wanted.ports[&word] >> shift & 0xff, u64::from(Class::Bulk.number() as u8 | PORT_OWN));
        assert!(complaints.is_empty());
    }

    #[test]
    fn only_tables_in_use_are_asked() {
        let mut policy = Policy::default();
        let bits = |policy: &Policy| uses(&gather(policy, &[]).0, policy);
        assert_eq!(bits(&policy), 0);
        policy.selectors = vec![(Class::Bulk, Selector::Mark(7)), (Class::Bulk, Selector::Dscp(46))];
        assert_eq!(bits(&policy), USES_MARKS | USES_DSCP);
        policy.classes[1] = ClassPolicy { peer_bytes_per_s: 1, ..ClassPolicy::default() };
        assert_eq!(bits(&policy), USES_MARKS | USES_DSCP | USES_DEPARTURE);
    }

    #[test]
    fn every_known_address_has_a_place() {
        let addresses = (0..3000_u32).map(|number| mapped((0x0a00_0000 + number).to_be()));
        let (slots, more) = place(addresses.clone().chain([[0; 4]]));
        assert_eq!(slots.len() + more.len(), 3000);
        assert!(more.len() < 600, "{} of 3000 did not find room in 8192 slots", more.len());
        for address in addresses {
            let is_there = known_slots(&address).iter().any(|slot| slots.get(slot) == Some(&address));
            assert!(is_there || more.contains_key(&address));
        }
    }

    #[test]
    fn addresses_of_both_versions_have_one_form() {
        let four = words("10.1.2.3".parse().unwrap());
        assert_eq!(four, words("::ffff:10.1.2.3".parse().unwrap()));
        assert_ne!(four, words("::10.1.2.3".parse().unwrap()));
    }
}
