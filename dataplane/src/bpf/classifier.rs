//! The loaded classifier: its programs on the interfaces, its maps, its log. Dropping it detaches everything.
use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    io,
    path::PathBuf,
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, PerCpuArray},
    programs::{ProgramError, SchedClassifier, TcAttachType, tc, tc::SchedClassifierLinkId},
    util::KernelVersion,
};
use aya_log::EbpfLogger;
use dwcp_abi::bpf::{
    COUNTERS_MAP, Class, Counter, DSCP_LENGTH, DSCP_MAP, Direction, ODD_MAP, PORTS_LENGTH_MAX, PORTS_MAP,
    counter_index,
};

use super::{CoreCounters, Interfaces, Options, Snapshot, Unavailable, interfaces, log::ToTracing};

/// The classifier in the kernel.
pub struct Classifier {
    ebpf: Ebpf,
    /// `None` where the object logs nothing.
    logger: Option<EbpfLogger<ToTracing>>,
    wanted: Interfaces,
    attached: BTreeMap<u32, Attached>,
    /// Interfaces that refused, by index: complained about once.
    refused: BTreeSet<u32>,
}

impl Classifier {
    /// Loads the first object that is there, fills its tables and attaches it.
    ///
    /// # Errors
    /// [`Unavailable`], of which the text is meant for the operator. That one interface refuses is logged instead.
    pub fn load(options: Options) -> Result<Self, Unavailable> {
        let object = options.objects.iter().find(|path| path.is_file());
        let object = object.ok_or_else(|| Unavailable::NoObject { tried: listed(&options.objects) })?;
        let place = object.display().to_string();
        let mut ebpf = Ebpf::load_file(object).map_err(|error| refusal(&place, &error))?;
        for direction in Direction::ALL {
            let program = program(&mut ebpf, direction).map_err(|error| refusal(&place, &error))?;
            program.load().map_err(|error| refusal(&place, &error))?;
        }
        let logger = match EbpfLogger::init_with_logger(&mut ebpf, ToTracing) {
            Ok(logger) => Some(logger),
            Err(error) => {
                tracing::debug!(%error, "kernel programs log nothing");
                None
            }
        };
        let (attached, refused) = Default::default();
        let mut classifier = Self { ebpf, logger, wanted: options.interfaces, attached, refused };
        classifier.set_ports(&options.ports)?;
        classifier.set_dscp(&options.dscp)?;
        classifier.refresh();
        Ok(classifier)
    }

    /// Attaches to interfaces that have come, forgets those that have gone, passes the programs' lines to the log.
    /// Call it every few seconds.
    pub fn refresh(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
        let eligible = match interfaces::eligible(&self.wanted) {
            Ok(eligible) => eligible,
            Err(error) => {
                tracing::warn!(%error, "interfaces cannot be listed; counting goes on where it is");
                return;
            }
        };
        let gone: Vec<u32> =
            self.attached.keys().copied().filter(|index| !eligible.contains_key(index)).collect();
        for index in gone {
            self.detach(index);
        }
        self.refused.retain(|index| eligible.contains_key(index));
        for (index, name) in eligible {
            if !self.attached.contains_key(&index) && !self.refused.contains(&index) {
                self.attach(index, name);
            }
        }
    }

    /// Names of the interfaces that are counted.
    pub fn interfaces(&self) -> impl Iterator<Item = &str> {
        self.attached.values().map(|attached| attached.name.as_str())
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

    /// Replaces the table of ports; packets meanwhile see old or new entries. Ports beyond the table's length are left
    /// out, with a warning.
    ///
    /// # Errors
    /// [`Unavailable::Map`].
    pub fn set_ports(&mut self, ports: &[(u16, Class)]) -> Result<(), Unavailable> {
        let fail = |error: &aya::maps::MapError| map_error(PORTS_MAP, error);
        if ports.len() > PORTS_LENGTH_MAX as usize {
            tracing::warn!(
                ports = ports.len(),
                max = PORTS_LENGTH_MAX,
                "more ports than the classifier can hold"
            );
        }
        let ports = &ports[..ports.len().min(PORTS_LENGTH_MAX as usize)];
        let map = self.ebpf.map_mut(PORTS_MAP);
        let mut table: HashMap<_, u16, u32> = open(PORTS_MAP, map)?;
        let old: Vec<u16> = table.keys().filter_map(Result::ok).take(PORTS_LENGTH_MAX as usize).collect();
        for port in old.into_iter().filter(|old| !ports.iter().any(|(port, _)| port == old)) {
            table.remove(&port).map_err(|error| fail(&error))?;
        }
        for &(port, class) in ports {
            table.insert(port, class.number(), 0).map_err(|error| fail(&error))?;
        }
        Ok(())
    }

    fn set_dscp(&mut self, values: &[(u8, Class)]) -> Result<(), Unavailable> {
        let map = self.ebpf.map_mut(DSCP_MAP);
        let mut table: Array<_, u32> = open(DSCP_MAP, map)?;
        for &(value, class) in values.iter().filter(|&&(value, _)| u32::from(value) < DSCP_LENGTH) {
            table.set(u32::from(value), class.number(), 0).map_err(|error| map_error(DSCP_MAP, &error))?;
        }
        Ok(())
    }

    fn attach(&mut self, index: u32, name: String) {
        match self.attach_both(&name) {
            Ok(links) => {
                tracing::info!(interface = name, "packets are counted per class");
                self.attached.insert(index, Attached { name, links });
            }
            Err(error) => {
                tracing::warn!(interface = name, error = first_line(&error), "packets are not counted here");
                self.refused.insert(index);
            }
        }
    }

    fn attach_both(&mut self, name: &str) -> Result<Vec<(Direction, SchedClassifierLinkId)>, ProgramError> {
        // Before tcx (6.6) filters need a place of their own; it stays, being shared, and harms nobody.
        if !has_tcx()
            && let Err(error) = tc::qdisc_add_clsact(name)
        {
            tracing::debug!(interface = name, %error, "clsact was not added, or is there already");
        }
        let mut links = Vec::with_capacity(Direction::ALL.len());
        for direction in Direction::ALL {
            match program(&mut self.ebpf, direction).and_then(|program| program.attach(name, side(direction)))
            {
                Ok(link) => links.push((direction, link)),
                Err(error) => {
                    self.drop_links(links);
                    return Err(error);
                }
            }
        }
        Ok(links)
    }

    fn detach(&mut self, index: u32) {
        if let Some(attached) = self.attached.remove(&index) {
            tracing::info!(interface = attached.name, "interface is gone or down, no longer counted");
            self.drop_links(attached.links);
        }
    }

    fn drop_links(&mut self, links: Vec<(Direction, SchedClassifierLinkId)>) {
        for (direction, link) in links {
            let dropped = program(&mut self.ebpf, direction).and_then(|program| program.detach(link));
            if let Err(error) = dropped {
                // The kernel detaches by itself when an interface goes; then there is nothing left to detach.
                tracing::debug!(%error, "link was already gone");
            }
        }
    }
}

impl std::fmt::Debug for Classifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Classifier").field("attached", &self.attached).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Attached {
    name: String,
    links: Vec<(Direction, SchedClassifierLinkId)>,
}

fn program(ebpf: &mut Ebpf, direction: Direction) -> Result<&mut SchedClassifier, ProgramError> {
    ebpf.program_mut(direction.program()).ok_or(ProgramError::NotLoaded)?.try_into()
}

/// Whether the kernel has links for traffic control (tcx, 6.6); aya decides by the same number.
fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

fn side(direction: Direction) -> TcAttachType {
    match direction {
        Direction::Ingress => TcAttachType::Ingress,
        Direction::Egress => TcAttachType::Egress,
    }
}

/// A map as its type, or why not.
fn open<M, T>(name: &'static str, map: Option<M>) -> Result<T, Unavailable>
where
    T: TryFrom<M, Error = aya::maps::MapError>,
{
    let map = map.ok_or_else(|| Unavailable::Map { map: name, detail: "not in this object".into() })?;
    T::try_from(map).map_err(|error| map_error(name, &error))
}

fn map_error(map: &'static str, error: &aya::maps::MapError) -> Unavailable {
    Unavailable::Map { map, detail: first_line(error) }
}

fn refusal(object: &str, error: &(dyn Error + 'static)) -> Unavailable {
    tracing::debug!(%error, object, "classifier was refused");
    if is_permission(error) {
        return Unavailable::NotPermitted { detail: first_line(error) };
    }
    Unavailable::Refused { object: object.to_owned(), detail: first_line(error) }
}

/// Whether the kernel's answer at the root of this error is "not permitted".
fn is_permission(error: &(dyn Error + 'static)) -> bool {
    causes(error)
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// The error and what caused it, outermost first.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The verifier's complaints are pages long; people get the first line.
fn first_line(error: &(dyn Error + 'static)) -> String {
    let last = causes(error).last().map(ToString::to_string).unwrap_or_default();
    let whole = error.to_string();
    let first = whole.lines().next().unwrap_or_default().to_owned();
    if last.is_empty() || first.contains(&last) || last.contains('\n') {
        first
    } else {
        format!("{first}: {last}")
    }
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}
