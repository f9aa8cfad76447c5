//! The loaded programs: on the interfaces, on the control group, their maps, their log. Dropping it detaches
//! everything that is not pinned.
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Array, Map, MapInfo, PerCpuArray},
    programs::{Program, ProgramError},
};
use aya_log::EbpfLogger;
use dwcp_abi::bpf::{
    COUNTERS_MAP, Class, Counter, DEPARTURE_COUNTS_MAP, DepartureCounter, Direction, GUARD_COUNTS_MAP,
    GuardRules, Guarded, ODD_MAP, SWITCH_MAP, SwitchWords, USES_DEPARTURE, counter_index,
};

use super::{
    CoreCounters, FlowReading, GuardMode, GuardPolicy, Options, Policy, Snapshot, Unavailable,
    flows::Meter,
    guard, interfaces,
    links::{Hook, Interfaces},
    log::ToTracing,
    pins::Pins,
    report::{Report, State},
    socket::Attachment,
    tables::{self, map_error, open},
};

/// The programs in the kernel.
pub struct Programs {
    ebpf: Ebpf,
    /// `None` where the object logs nothing.
    logger: Option<EbpfLogger<ToTracing>>,
    options: Options,
    interfaces: Interfaces,
    socket: Attachment,
    pins: Result<Pins, String>,
    is_lasting: bool,
    wants_lasting: bool,
    guard: Result<bool, String>,
    known: BTreeSet<IpAddr>,
    rules: GuardRules,
    ports: tables::Ports,
    fq: BTreeSet<u32>,
    meter: Meter,
    complaints: Vec<String>,
}

impl Programs {
    /// Loads the first object that is there and attaches it, with what an earlier life pinned. Classes and rates come
    /// with [`Programs::apply`].
    ///
    /// # Errors
    /// [`Unavailable`], of which the text is meant for the operator. That one interface refuses is logged instead.
    pub fn load(options: Options) -> Result<Self, Unavailable> {
        let pins = match &options.pins {
            Some((root, node)) => Pins::new(root, node),
            None => Err("not asked for".to_owned()),
        };
        let earlier = pins.as_ref().ok().filter(|pins| pins.exist() && takes_over(&options, pins));
        let (mut ebpf, is_lasting) = match load_object(&options, earlier) {
            Ok(ebpf) => (ebpf, earlier.is_some()),
            Err(error) => {
                // The verifier sees more than sizes.
                let Some(pins) = earlier.filter(|_| matches!(error, Unavailable::Refused { .. })) else {
                    return Err(error);
                };
                tracing::warn!(%error, "what an earlier life pinned is of no use: it is removed");
                pins.remove();
                (load_object(&options, None)?, false)
            }
        };
        let logger = match EbpfLogger::init_with_logger(&mut ebpf, ToTracing) {
            Ok(logger) => Some(logger),
            Err(error) => {
                tracing::debug!(%error, "kernel programs log nothing");
                None
            }
        };
        let mut programs = Self {
            ebpf,
            logger,
            interfaces: Interfaces::default(),
            socket: Attachment::Off("no policy came yet".to_owned()),
            pins,
            is_lasting,
            wants_lasting: is_lasting,
            guard: Ok(false),
            known: BTreeSet::new(),
            rules: GuardRules::default(),
            ports: (!is_lasting).then(Default::default),
            fq: BTreeSet::new(),
            meter: Meter::default(),
            complaints: Vec::new(),
            options,
        };
        if !is_lasting {
            // What was pinned is in force as it is until the policy comes.
            programs.write_tables(&Policy::default())?;
        }
        programs.refresh();
        Ok(programs)
    }

    /// Puts a policy in force, for flows that run too. What cannot be done is in [`Programs::report`].
    ///
    /// # Errors
    /// [`Unavailable::Map`].
    pub fn apply(&mut self, policy: &Policy) -> Result<(), Unavailable> {
        self.write_tables(policy)?;
        self.set_guard(policy.guard)?;
        self.wants_lasting = policy.is_lasting();
        self.set_lasting(self.wants_lasting);
        let pins = self.pins.as_ref().ok().filter(|_| self.is_lasting);
        self.socket.set(&mut self.ebpf, policy.cgroup.as_deref(), pins);
        self.refresh();
        if let Some(pins) = self.pins.as_ref().ok().filter(|_| self.is_lasting) {
            self.interfaces.sweep(pins);
            pins.sweep_other_layouts();
        }
        Ok(())
    }

    /// Says whom the guard never holds back, beside everybody it was told of before.
    ///
    /// # Errors
    /// [`Unavailable::Map`].
    pub fn set_known(&mut self, known: BTreeSet<IpAddr>) -> Result<(), Unavailable> {
        if known == self.known {
            return Ok(());
        }
        self.known = known;
        let more_known = tables::write_known(&mut self.ebpf, self.known.iter().copied())?;
        self.rules.more_known = more_known;
        tables::write_guard(&mut self.ebpf, &self.rules)
    }

    /// Attaches to interfaces that have come, forgets those that have gone, passes the programs' lines to the log.
    /// Call it every few seconds.
    pub fn refresh(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
        let eligible = match interfaces::eligible(&self.options.interfaces) {
            Ok(eligible) => eligible,
            Err(error) => {
                tracing::warn!(%error, "interfaces cannot be listed; counting goes on where it is");
                return;
            }
        };
        let is_guarding = matches!(self.guard, Ok(true));
        let hooks = Hook::ALL.into_iter().filter(|hook| *hook != Hook::Guard || is_guarding);
        let pins = self.pins.as_ref().ok().filter(|_| self.is_lasting);
        self.interfaces.follow(&mut self.ebpf, eligible, &hooks.collect::<Vec<_>>(), pins);
        if let Err(error) = self.follow_fq() {
            tracing::warn!(%error, "departure times are stamped where they were");
        }
    }

    /// Names of the interfaces that are counted.
    pub fn interfaces(&self) -> impl Iterator<Item = &str> {
        self.interfaces.names()
    }

    /// All counters, per core, direction and class.
    ///
    /// # Errors
    /// [`Unavailable::Map`], which says that the object is of another version.
    pub fn read(&self) -> Result<Snapshot, Unavailable> {
        let counters: PerCpuArray<_, [u64; 2]> = open(COUNTERS_MAP, self.ebpf.map(COUNTERS_MAP))?;
        let odd: PerCpuArray<_, u64> = open(ODD_MAP, self.ebpf.map(ODD_MAP))?;
        let per_core = odd.get(&0, 0).map_err(|error| map_error(ODD_MAP, &error))?;
        let mut cores: Vec<_> =
            per_core.iter().map(|&odd| CoreCounters { odd, ..CoreCounters::default() }).collect();
        for direction in Direction::ALL {
            for class in Class::ALL {
                let index = counter_index(direction, class);
                let values = counters.get(&index, 0).map_err(|error| map_error(COUNTERS_MAP, &error))?;
                for (core, &value) in cores.iter_mut().zip(values.iter()) {
                    core.traffic[direction as usize][class as usize] = Counter::from(value);
                }
            }
        }
        Ok(Snapshot { cores })
    }

    /// The flow table, busiest first.
    ///
    /// # Errors
    /// [`Unavailable::Map`].
    pub fn flows(&mut self, now: Instant) -> Result<Vec<FlowReading>, Unavailable> {
        self.meter.read(self.ebpf.map(dwcp_abi::bpf::FLOWS_MAP), now)
    }

    /// What the guard decided so far, by [`Guarded`].
    ///
    /// # Errors
    /// [`Unavailable::Map`].
    pub fn guarded(&self) -> Result<[u64; Guarded::COUNT as usize], Unavailable> {
        self.totals(GUARD_COUNTS_MAP)
    }

    /// Packets that were given a later departure, and packets that were dropped for it.
    ///
    /// # Errors
    /// [`Unavailable::Map`].
    pub fn departures(&self) -> Result<[u64; DepartureCounter::COUNT as usize], Unavailable> {
        self.totals(DEPARTURE_COUNTS_MAP)
    }

    /// Whether connections are followed.
    #[must_use]
    pub fn paces(&self) -> bool {
        matches!(self.socket, Attachment::On { .. })
    }

    /// Whether the peer port is guarded.
    #[must_use]
    pub fn guards(&self) -> bool {
        matches!(self.guard, Ok(true))
    }

    /// Programs, maps, attachments and what is not as it was asked for.
    #[must_use]
    pub fn report(&self) -> Report {
        let uses_departure = self.switch().is_ok_and(|[uses, _]| uses & USES_DEPARTURE != 0);
        Report::of(&State {
            ebpf: &self.ebpf,
            interfaces: &self.interfaces,
            socket: &self.socket,
            pins: self.pins.as_ref().map_err(String::as_str),
            is_lasting: self.is_lasting,
            wants_lasting: self.wants_lasting,
            guard: self.guard.as_ref().map_err(String::as_str),
            guarded: self.guarded().unwrap_or_default(),
            fq: self.fq.len(),
            uses_departure,
            departures: self.departures().unwrap_or_default(),
            complaints: &self.complaints,
        })
    }

    fn switch(&self) -> Result<SwitchWords, Unavailable> {
        let table: Array<_, SwitchWords> = open(SWITCH_MAP, self.ebpf.map(SWITCH_MAP))?;
        table.get(&0, 0).map_err(|error| map_error(SWITCH_MAP, &error))
    }

    fn totals<const N: usize>(&self, name: &'static str) -> Result<[u64; N], Unavailable> {
        let map: PerCpuArray<_, u64> = open(name, self.ebpf.map(name))?;
        let mut totals = [0; N];
        for (index, total) in totals.iter_mut().enumerate() {
            let values = map.get(&(index as u32), 0).map_err(|error| map_error(name, &error))?;
            *total = values.iter().fold(0, |sum: u64, &value| sum.wrapping_add(value));
        }
        Ok(totals)
    }

    fn write_tables(&mut self, policy: &Policy) -> Result<(), Unavailable> {
        self.complaints = tables::write(&mut self.ebpf, policy, &self.options.ports, &mut self.ports)?;
        for complaint in &self.complaints {
            tracing::warn!(complaint, "a selector is left out");
        }
        Ok(())
    }

    fn set_guard(&mut self, policy: GuardPolicy) -> Result<(), Unavailable> {
        let port = self.options.ports.first().map(|&(port, _)| port);
        self.guard = match (policy.mode, port) {
            (GuardMode::Off, _) => Ok(false),
            (_, None) => Err("this node listens at no port".to_owned()),
            (GuardMode::On, Some(port)) => guard::refusal(port).map_or(Ok(true), Err),
            (GuardMode::Forced, Some(_)) => Ok(true),
        };
        if let Err(reason) = &self.guard {
            tracing::warn!(reason, "the peer port is not guarded");
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
        let more_known = self.rules.more_known;
        self.rules = match (&self.guard, port) {
            (Ok(true), Some(port)) => GuardRules {
                port: u64::from(port),
                source_per_s: u64::from(policy.source_per_s),
                total_per_s: (u64::from(policy.total_per_s) / cores).max(1),
                more_known,
            },
            _ => GuardRules { more_known, ..GuardRules::default() },
        };
        tables::write_guard(&mut self.ebpf, &self.rules)
    }

    /// Pins everything, or takes the pins away.
    fn set_lasting(&mut self, is_lasting: bool) {
        let Ok(pins) = &self.pins else { return };
        if is_lasting == self.is_lasting {
            return;
        }
        if is_lasting {
            let pinned = pins.create().map_err(|error| error.to_string()).and_then(|()| {
                self.ebpf.maps().filter(|(name, _)| is_shared(name)).try_for_each(|(name, map)| {
                    map.pin(pins.map(name)).map_err(|error| format!("{name}: {error}"))
                })
            });
            if let Err(reason) = pinned {
                tracing::warn!(reason, "nothing is pinned: pacing ends with the dataplane");
                pins.remove();
                self.pins = Err(reason);
                return;
            }
        }
        self.is_lasting = is_lasting;
        let pins = Some(pins).filter(|_| is_lasting);
        self.interfaces.set_pins(pins);
        self.socket.set_pins(pins);
        if !is_lasting && let Ok(pins) = &self.pins {
            pins.remove();
        }
    }

    fn follow_fq(&mut self) -> Result<(), Unavailable> {
        let disciplines = match dwcp_sys::queueing::disciplines() {
            Ok(disciplines) => disciplines,
            Err(error) => {
                tracing::debug!(%error, "queueing disciplines cannot be listed");
                return Ok(());
            }
        };
        let ours: BTreeSet<u32> = self.interfaces.indices().collect();
        let fq = &dwcp_sys::queueing::with_fq(&disciplines) & &ours;
        if fq == self.fq {
            return Ok(());
        }
        self.fq = fq;
        tables::write_fq(&mut self.ebpf, self.fq.iter().copied())
    }
}

impl std::fmt::Debug for Programs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Programs").field("interfaces", &self.interfaces).finish_non_exhaustive()
    }
}

/// Whether an earlier life's maps have the shape that this version's programs and tables want: nothing of a former life is
/// believed. What has another shape is removed.
fn takes_over(options: &Options, pins: &Pins) -> bool {
    // Without its programs: only maps are made, and go again.
    let fresh =
        options.objects.iter().find(|path| path.is_file()).and_then(|path| Ebpf::load_file(path).ok());
    let Some(fresh) = fresh else { return true };
    let fits = |name: &str| {
        let Some(wanted) = fresh.map(name).and_then(shape) else { return false };
        // One that is missing is made.
        MapInfo::from_pin(pins.map(name)).map_or(true, |found| shape_of(&found) == wanted)
    };
    let Some(name) = SHARED_MAPS.into_iter().find(|name| !fits(name)) else { return true };
    tracing::warn!(map = name, "what an earlier life pinned has another shape: it is removed");
    pins.remove();
    false
}

/// Sizes of key and value, and how many there may be.
fn shape(map: &Map) -> Option<[u32; 3]> {
    let data = match map {
        Map::Array(data) | Map::HashMap(data) | Map::LruHashMap(data) | Map::PerCpuArray(data) => data,
        _ => return None,
    };
    data.info().ok().map(|info| shape_of(&info))
}

fn shape_of(info: &MapInfo) -> [u32; 3] {
    [info.key_size(), info.value_size(), info.max_entries()]
}

/// The object with all programs in the kernel, on an earlier life's maps where there are some.
fn load_object(options: &Options, earlier: Option<&Pins>) -> Result<Ebpf, Unavailable> {
    let object = options.objects.iter().find(|path| path.is_file());
    let object = object.ok_or_else(|| Unavailable::NoObject { tried: super::listed(&options.objects) })?;
    let place = object.display().to_string();
    let mut loader = EbpfLoader::new();
    if let Some(pins) = earlier {
        for name in SHARED_MAPS {
            loader.map_pin_path(name, pins.map(name));
        }
    }
    let mut ebpf = loader.load_file(object).map_err(|error| super::refusal(&place, &error))?;
    for (_, program) in ebpf.programs_mut() {
        load_program(program).map_err(|error| super::refusal(&place, &error))?;
    }
    Ok(ebpf)
}

fn load_program(program: &mut Program) -> Result<(), EbpfError> {
    let loaded = match program {
        Program::SchedClassifier(program) => program.load(),
        Program::SockOps(program) => program.load(),
        // The object holds nothing else; one that does is another's.
        _ => Err(ProgramError::UnexpectedProgramType),
    };
    Ok(loaded?)
}

fn is_shared(name: &str) -> bool {
    SHARED_MAPS.contains(&name)
}

/// Maps that a policy lives in, which the next dataplane takes over. The rest (counters, the log's buffer) is new in
/// each life.
const SHARED_MAPS: [&str; 15] = [
    dwcp_abi::bpf::PORTS_MAP,
    dwcp_abi::bpf::DSCP_MAP,
    dwcp_abi::bpf::TUPLES_MAP,
    dwcp_abi::bpf::MARKS_MAP,
    dwcp_abi::bpf::CGROUPS_MAP,
    dwcp_abi::bpf::POLICY_MAP,
    dwcp_abi::bpf::SWITCH_MAP,
    dwcp_abi::bpf::FLOWS_MAP,
    dwcp_abi::bpf::DEPARTURES_MAP,
    dwcp_abi::bpf::FQ_MAP,
    dwcp_abi::bpf::GUARD_MAP,
    dwcp_abi::bpf::KNOWN_MAP,
    dwcp_abi::bpf::MORE_KNOWN_MAP,
    dwcp_abi::bpf::SOURCES_MAP,
    dwcp_abi::bpf::TOTAL_MAP,
];
