//! Files that are equal by content stay, whatever their times say.
use crate::support::{state, treated};
use dwcp_abi::wire::TreeOptions;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

const CHECKSUM: TreeOptions = TreeOptions::CHECKSUM;
const SIZES: [usize; 5] = [0, 1, 5_000, 200_000, 1 << 20];

/// Files of every size, all dated alike.
fn fill(root: &Path, seconds: u64) {
    fs::create_dir_all(root).unwrap();
    for size in SIZES {
        let path = root.join(size.to_string());
        fs::write(&path, vec![size as u8; size]).unwrap();
        date(&path, seconds);
    }
}

fn date(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

fn inodes(root: &Path) -> Vec<u64> {
    SIZES.map(|size| fs::metadata(root.join(size.to_string())).unwrap().ino()).to_vec()
}

#[test]
fn equal_content_stays_and_takes_time_and_mode_over() {
    let space = tempfile::tempdir().unwrap();
    let (from, to) = (space.path().join("from"), space.path().join("to"));
    fill(&from, 1_000);
    fill(&to, 2_000);
    fs::set_permissions(from.join("5000"), Permissions::from_mode(0o640)).unwrap();
    let before = inodes(&to);
    let report = treated(CHECKSUM, b"", from.join(""), &to);
    assert!(report.failures.is_empty());
    assert_eq!(inodes(&to), before);
    assert_eq!(state(&from), state(&to));
    // Times that are not trusted do not decide.
    let both = CHECKSUM.with(TreeOptions::SKIP_UNCHANGED, true);
    for name in ["1", "5000", "1048576"] {
        let mut bytes = fs::read(to.join(name)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(to.join(name), bytes).unwrap();
        date(&to.join(name), 1_000);
    }
    let changes = treated(both.with(TreeOptions::DRY_RUN, true), b"", from.join(""), &to).totals.changes;
    assert_eq!((changes.replaced, changes.bytes), (3, 1 + 5_000 + (1 << 20)));
    treated(both, b"", from.join(""), &to);
    assert_eq!(state(&from), state(&to));
    let replaced = before.iter().zip(inodes(&to)).filter(|(before, after)| **before != *after).count();
    assert_eq!(replaced, 3);
}
