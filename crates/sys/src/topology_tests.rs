//! Tests of the topology against made-up sysfs trees, and of pinning on this machine.
use super::*;
use std::fs;
use tempfile::TempDir;

/// A sysfs with these NUMA nodes (cores of each) and these groups of sibling threads.
fn sysfs(nodes: &[&str], siblings: &[&str]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let system = root.path().join("devices/system");
    let mut online = BTreeSet::new();
    for group in siblings {
        for core in parse_list(group).unwrap() {
            let topology = system.join(format!("cpu/cpu{core}/topology"));
            fs::create_dir_all(&topology).unwrap();
            fs::write(topology.join("core_cpus_list"), format!("{group}\n")).unwrap();
            online.insert(core);
        }
    }
    let online: Vec<_> = online.iter().map(ToString::to_string).collect();
    fs::write(system.join("cpu/online"), online.join(",")).unwrap();
    for (node, cores) in nodes.iter().enumerate() {
        fs::create_dir_all(system.join(format!("node/node{node}"))).unwrap();
        fs::write(system.join(format!("node/node{node}/cpulist")), cores).unwrap();
    }
    fs::create_dir_all(system.join("node")).unwrap();
    fs::write(system.join("node/online"), format!("0-{}\n", nodes.len() - 1)).unwrap();
    root
}

fn all() -> BTreeSet<usize> {
    (0..1024).collect()
}

/// Two nodes of two cores with two threads each, numbered as most servers do.
fn server() -> Topology {
    let root = sysfs(&["0-1,4-5", "2-3,6-7"], &["0,4", "1,5", "2,6", "3,7"]);
    Topology::read(root.path(), &all())
}

#[test]
fn nodes_and_siblings_are_read() {
    let server = server();
    assert_eq!(server.physical_cores(), 4);
    let seen: Vec<_> = server.processors().iter().map(|each| (each.node, each.physical, each.core)).collect();
    assert_eq!(
        seen,
        [(0, 0, 0), (0, 0, 4), (0, 1, 1), (0, 1, 5), (1, 2, 2), (1, 2, 6), (1, 3, 3), (1, 3, 7)]
    );
}

#[test]
fn workers_get_one_thread_per_core_away_from_control() {
    let server = server();
    assert_eq!(server.choose_cores(0, 1), [1, 2, 3]);
    assert_eq!(server.choose_cores(2, 1), [1, 2]);
    assert_eq!(server.choose_cores(0, 2), [2, 3]);
    assert_eq!(server.choose_cores(4, 1), [1, 2, 3, 0]);
    assert_eq!(server.choose_cores(6, 1), [1, 2, 3, 0, 5, 6]);
    assert_eq!(server.choose_cores(100, 1), [1, 2, 3, 0, 5, 6, 7, 4]);
    assert_eq!(server.choose_cores(0, 9), [0]);
}

#[test]
fn small_machines_still_get_a_worker() {
    let one = Topology::read(sysfs(&["0"], &["0"]).path(), &all());
    assert_eq!(one.choose_cores(0, 1), [0]);
    assert_eq!(one.choose_cores(3, 1), [0]);
    assert_eq!(one.cores_beside(&[0]), [0]);
    let two = Topology::read(sysfs(&["0-1"], &["0", "1"]).path(), &all());
    assert_eq!(two.choose_cores(0, 1), [1]);
    assert_eq!(two.choose_cores(2, 1), [1, 0]);
    assert_eq!(two.cores_beside(&[1]), [0]);
    let two_threads = Topology::read(sysfs(&["0-1"], &["0-1"]).path(), &all());
    assert_eq!(two_threads.physical_cores(), 1);
    assert_eq!(two_threads.choose_cores(0, 1), [0]);
    assert_eq!(two_threads.choose_cores(2, 1), [0, 1]);
}

#[test]
fn the_affinity_mask_and_offline_cores_narrow_the_choice() {
    let root = sysfs(&["0-1,4-5", "2-3,6-7"], &["0,4", "1,5", "2,6", "3,7"]);
    let narrowed = Topology::read(root.path(), &[2, 6, 7].into());
    assert_eq!(narrowed.choose_cores(0, 1), [7]);
    assert_eq!(narrowed.choose_cores(9, 1), [7, 2, 6]);
    fs::write(root.path().join("devices/system/cpu/online"), "0-2\n").unwrap();
    assert_eq!(Topology::read(root.path(), &all()).choose_cores(9, 1), [1, 2, 0]);
}

#[test]
fn an_empty_or_damaged_sysfs_makes_every_core_its_own() {
    let root = tempfile::tempdir().unwrap();
    let bare = Topology::read(root.path(), &[0, 1, 2].into());
    assert_eq!(bare.choose_cores(0, 1), [1, 2]);
    let system = root.path().join("devices/system");
    fs::create_dir_all(system.join("cpu/cpu1/topology")).unwrap();
    fs::create_dir_all(system.join("node")).unwrap();
    fs::write(system.join("cpu/cpu1/topology/core_cpus_list"), "7-3").unwrap();
    fs::write(system.join("cpu/online"), "0-99999999999").unwrap();
    fs::write(system.join("node/online"), "x").unwrap();
    assert_eq!(Topology::read(root.path(), &[0, 1, 2].into()), bare);
    assert_eq!(Topology::read(root.path(), &BTreeSet::new()).choose_cores(4, 1), [0_usize; 0]);
}

#[test]
fn lists_of_the_kernel_are_parsed() {
    let parsed = |text| parse_list(text).map(|list| list.into_iter().collect::<Vec<_>>());
    assert_eq!(parsed("0-2,8,10-11\n"), Some(vec![0, 1, 2, 8, 10, 11]));
    assert_eq!(parsed("\n"), Some(vec![]));
    for wrong in ["a", "1-", "3-1", "0-65536", "-1", "1--2"] {
        assert_eq!(parsed(wrong), None, "{wrong}");
    }
}

#[test]
fn this_machine_has_a_core_to_pin_to() {
    let topology = Topology::of_this_process().unwrap();
    let chosen = topology.choose_cores(1, 1);
    std::thread::spawn(move || {
        pin_current_thread(chosen[0]).unwrap();
        assert_eq!(allowed_cores().unwrap(), chosen.iter().copied().collect());
        assert_eq!(pin_current_thread(9_999).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(pin_current_thread_to(&[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    })
    .join()
    .unwrap();
}
