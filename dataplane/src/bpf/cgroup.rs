//! Control groups: where cgroup2 is mounted, which group is the node's own, and their ids.
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

/// Files that say where control groups are; replaced in tests.
#[derive(Debug)]
pub(super) struct Places<'a> {
    /// `/proc/self/mounts`.
    pub(super) mounts: &'a str,
    /// `/proc/self/cgroup`.
    pub(super) own: &'a str,
}

/// The directory of `wanted` (below the mount point), or of the node's own group.
///
/// # Errors
/// One line for people.
pub(super) fn directory(wanted: Option<&Path>) -> Result<PathBuf, String> {
    let mounts =
        fs::read_to_string("/proc/self/mounts").map_err(|error| format!("/proc/self/mounts: {error}"))?;
    let own =
        fs::read_to_string("/proc/self/cgroup").map_err(|error| format!("/proc/self/cgroup: {error}"))?;
    choose(&Places { mounts: &mounts, own: &own }, wanted)
}

fn choose(places: &Places<'_>, wanted: Option<&Path>) -> Result<PathBuf, String> {
    let mounted = places.mounts.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (place, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place))
    });
    let mounted = mounted.ok_or("cgroup2 is not mounted: `mount -t cgroup2 none /sys/fs/cgroup`")?;
    let path = match wanted {
        Some(path) => path.to_owned(),
        None => own(places.own).ok_or("this process is in no group of cgroup2")?,
    };
    below(&mounted, &path).ok_or_else(|| format!("{}: no path of a control group", path.display()))
}

/// The node's slice where it runs in one: the slice stays when one half is started anew. Else the process's group.
fn own(text: &str) -> Option<PathBuf> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let path = Path::new(path);
    let slice = path.ancestors().find(|ancestor| ancestor.ends_with(SLICE));
    Some(slice.unwrap_or(path).to_owned())
}

fn below(mounted: &Path, path: &Path) -> Option<PathBuf> {
    let mut whole = mounted.to_owned();
    for component in path.components() {
        match component {
            Component::Normal(name) => whole.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(whole)
}

/// What the kernel calls the group: the inode of its directory (`cgroup_id`, include/linux/cgroup.h).
///
/// # Errors
/// It does not exist.
pub(super) fn id(directory: &Path) -> io::Result<u64> {
    fs::metadata(directory).map(|metadata| metadata.ino())
}

/// What the units call the node's slice.
const SLICE: &str = "dwcp.slice";

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";

    fn chosen(own: &str, wanted: Option<&str>) -> Result<PathBuf, String> {
        choose(&Places { mounts: MOUNTS, own }, wanted.map(Path::new))
    }

    #[test]
    fn the_slice_is_preferred_to_the_service() {
        let own = "0::/dwcp.slice/dwcp-dataplane.service\n";
        assert_eq!(chosen(own, None).unwrap(), Path::new("/sys/fs/cgroup/dwcp.slice"));
        assert_eq!(chosen("1:cpu:/x\n0::/user/me\n", None).unwrap(), Path::new("/sys/fs/cgroup/user/me"));
        assert_eq!(chosen("0::/\n", None).unwrap(), Path::new("/sys/fs/cgroup"));
    }

    #[test]
    fn a_wanted_group_stays_below_the_mount_point() {
        assert_eq!(chosen("0::/", Some("/a/b")).unwrap(), Path::new("/sys/fs/cgroup/a/b"));
        assert!(chosen("0::/", Some("/../../etc")).is_err());
    }

    #[test]
    fn without_cgroup2_there_is_one_line() {
        let error = choose(&Places { mounts: "proc /proc proc rw 0 0\n", own: "0::/" }, None).unwrap_err();
        assert_eq!(error.lines().count(), 1);
        assert!(chosen("9:name=systemd:/\n", None).is_err());
    }
}
