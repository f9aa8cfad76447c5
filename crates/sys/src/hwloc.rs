//! The topology as libhwloc sees it, for [`crate::topology`] where the feature `hwloc` is on.
use std::collections::BTreeSet;

use hwlocality::Topology;
use hwlocality::object::types::ObjectType;

use crate::topology::Processor;

/// Why libhwloc gave no topology.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HwlocError {
    /// The library failed.
    #[error("libhwloc: {0}")]
    Library(String),
    /// The library knows none of the cores that this process may use.
    #[error("libhwloc knows none of this process's cores")]
    Empty,
}

/// The processors in `allowed`.
///
/// # Errors
/// Any [`HwlocError`].
pub(crate) fn processors(allowed: &BTreeSet<usize>) -> Result<Vec<Processor>, HwlocError> {
    let topology = Topology::new().map_err(|error| HwlocError::Library(error.to_string()))?;
    let mut processors = Vec::new();
    for unit in topology.objects_with_type(ObjectType::PU) {
        let Some(core) = unit.os_index().filter(|core| allowed.contains(core)) else { continue };
        let node = unit.nodeset().and_then(|nodes| nodes.first_set()).map_or(0, usize::from);
        let siblings =
            unit.first_ancestor_with_type(ObjectType::Core).and_then(|physical| physical.complete_cpuset());
        let physical = siblings.and_then(|siblings| siblings.first_set()).map_or(core, usize::from);
        processors.push(Processor { node, physical, core });
    }
    if processors.is_empty() { Err(HwlocError::Empty) } else { Ok(processors) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::allowed_cores;
    use std::path::Path;

    #[test]
    fn sees_the_same_processors_as_sysfs() {
        let allowed = allowed_cores().unwrap();
        let mut seen = processors(&allowed).unwrap();
        seen.sort_unstable();
        let sysfs = crate::topology::Topology::read(Path::new("/sys"), &allowed);
        assert_eq!(seen, sysfs.processors());
    }

    #[test]
    fn a_mask_of_unknown_cores_is_an_error() {
        assert!(matches!(processors(&BTreeSet::from([60_000])), Err(HwlocError::Empty)));
    }
}
