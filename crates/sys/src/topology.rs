//! The machine's processors as this process may use them, from sysfs and the affinity mask (which cpusets and
//! containers narrow), and pinning. The dataplane chooses its workers' cores here. With the feature `hwloc`
//! libhwloc is asked for the same facts.
use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// One logical processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Processor {
    /// NUMA node.
    pub node: usize,
    /// Physical core, named by its first logical processor.
    pub physical: usize,
    /// The kernel's number of the logical processor.
    pub core: usize,
}

/// The logical processors that this process may run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    processors: Vec<Processor>,
}

impl Topology {
    /// Reads the machine's topology, narrowed to the calling thread's affinity mask.
    ///
    /// # Errors
    /// The system's error. Files that sysfs lacks are no error: each processor is then a core of its own.
    pub fn of_this_process() -> io::Result<Self> {
        let allowed = allowed_cores()?;
        #[cfg(feature = "hwloc")]
        match crate::hwloc::processors(&allowed) {
            Ok(processors) => return Ok(Self::from_processors(processors)),
            Err(error) => tracing::warn!(%error, "hwloc failed: the topology is read from sysfs"),
        }
        Ok(Self::read(Path::new("/sys"), &allowed))
    }

    /// Reads the topology below `sysfs`, narrowed to the cores in `allowed`. What is missing or unreadable there
    /// makes processors cores of their own on node 0.
    #[must_use]
    pub fn read(sysfs: &Path, allowed: &BTreeSet<usize>) -> Self {
        let nodes = numa_nodes(sysfs);
        let online = read_list(&sysfs.join("devices/system/cpu/online"));
        let usable = allowed.iter().filter(|core| online.as_ref().is_none_or(|online| online.contains(core)));
        let processor = |core: usize| Processor {
            node: nodes.iter().find(|(_, cores)| cores.contains(&core)).map_or(0, |(node, _)| *node),
            physical: first_sibling(sysfs, core).unwrap_or(core),
            core,
        };
        Self::from_processors(usable.map(|core| processor(*core)).collect())
    }

    fn from_processors(mut processors: Vec<Processor>) -> Self {
        processors.sort_unstable();
        Self { processors }
    }

    /// The processors, by node, physical core and number.
    #[must_use]
    pub fn processors(&self) -> &[Processor] {
        &self.processors
    }

    /// Number of physical cores.
    #[must_use]
    pub fn physical_cores(&self) -> usize {
        self.processors.iter().map(|processor| processor.physical).collect::<BTreeSet<_>>().len()
    }

    /// Cores for `workers` threads that never sleep for long; 0 = as many as there are physical cores beside the
    /// `reserve_for_control` first ones, at least one. One thread per physical core, the reserved ones (where the
    /// kernel's own work and control run) after all others, second threads of a core last. Never two workers on one
    /// processor: fewer cores come back where there are not enough.
    #[must_use]
    pub fn choose_cores(&self, workers: usize, reserve_for_control: usize) -> Vec<usize> {
        let reserved = self.reserved(reserve_for_control);
        let is_reserved = |processor: &Processor| reserved.contains(&processor.physical);
        let mut seen = BTreeSet::new();
        let (first, second): (Vec<&Processor>, Vec<&Processor>) =
            self.processors.iter().partition(|processor| seen.insert(processor.physical));
        let free = first.iter().filter(|processor| !is_reserved(processor)).count();
        let wanted = if workers == 0 { free.max(1) } else { workers };
        let mut preferred: Vec<(bool, bool, &Processor)> = Vec::new();
        preferred.extend(first.iter().map(|processor| (false, is_reserved(processor), *processor)));
        preferred.extend(second.iter().map(|processor| (true, is_reserved(processor), *processor)));
        preferred.sort_unstable();
        preferred.into_iter().take(wanted).map(|(_, _, processor)| processor.core).collect()
    }

    /// Cores that no worker of `workers` (an answer of [`Topology::choose_cores`]) uses: for control and for the
    /// dataplane's other threads. All cores where the workers use every one.
    #[must_use]
    pub fn cores_beside(&self, workers: &[usize]) -> Vec<usize> {
        let all = self.processors.iter().map(|processor| processor.core);
        let beside: Vec<usize> = all.clone().filter(|core| !workers.contains(core)).collect();
        if beside.is_empty() { all.collect() } else { beside }
    }

    /// The physical cores with the lowest numbers.
    fn reserved(&self, count: usize) -> BTreeSet<usize> {
        let all: BTreeSet<usize> = self.processors.iter().map(|processor| processor.physical).collect();
        all.into_iter().take(count).collect()
    }
}

/// Binds the calling thread to one core.
///
/// # Errors
/// The system's error; `InvalidInput` for a core that does not exist or is not allowed.
pub fn pin_current_thread(core: usize) -> io::Result<()> {
    pin_current_thread_to(&[core])
}

/// Binds the calling thread to several cores, among which the kernel schedules it.
///
/// # Errors
/// The system's error; `InvalidInput` where none of the cores exists and is allowed.
pub fn pin_current_thread_to(cores: &[usize]) -> io::Result<()> {
    let mut mask = CpuSet::new();
    for core in cores {
        mask.set(*core)?;
    }
    Ok(sched_setaffinity(THIS_THREAD, &mask)?)
}

/// Cores in the calling thread's affinity mask.
///
/// # Errors
/// The system's error.
pub fn allowed_cores() -> io::Result<BTreeSet<usize>> {
    let mask = sched_getaffinity(THIS_THREAD)?;
    Ok((0..CpuSet::count()).filter(|core| mask.is_set(*core).unwrap_or(false)).collect())
}

fn first_sibling(sysfs: &Path, core: usize) -> Option<usize> {
    let topology = sysfs.join(format!("devices/system/cpu/cpu{core}/topology"));
    // The first name is the current one, the second the one before Linux 5.
    let siblings = ["core_cpus_list", "thread_siblings_list"]
        .iter()
        .find_map(|name| read_list(&topology.join(name)))
        .filter(|siblings| siblings.contains(&core))?;
    siblings.first().copied()
}

fn numa_nodes(sysfs: &Path) -> Vec<(usize, BTreeSet<usize>)> {
    let nodes = sysfs.join("devices/system/node");
    let online = read_list(&nodes.join("online")).unwrap_or_default();
    let cores = |node: usize| read_list(&nodes.join(format!("node{node}/cpulist")));
    online.into_iter().filter_map(|node| Some((node, cores(node)?))).collect()
}

fn read_list(path: &Path) -> Option<BTreeSet<usize>> {
    parse_list(&std::fs::read_to_string(path).ok()?)
}

/// Parses the kernel's lists, for example `0-3,8,10-11`.
fn parse_list(text: &str) -> Option<BTreeSet<usize>> {
    let mut list = BTreeSet::new();
    for range in text.trim().split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= PROCESSORS_MAX {
            return None;
        }
        list.extend(first..=last);
    }
    Some(list)
}

/// Far above any kernel's NR_CPUS: bounds what a list can make us allocate.
const PROCESSORS_MAX: usize = 1 << 16;

const THIS_THREAD: Pid = Pid::from_raw(0);

#[cfg(test)]
#[path = "topology_tests.rs"]
mod tests;
