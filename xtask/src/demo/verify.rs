//! Compares two trees without trusting anything of DWCP: names, kinds, modes, times, targets of links, and BLAKE2b-512
//! of every file as coreutils computes it. Called by the demo.
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// What was found equal.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Equal {
    /// Files, directories and links.
    pub(super) entries: u64,
    /// Files among them, each read at both ends.
    pub(super) files: u64,
    /// Content of the files at one end, in bytes.
    pub(super) bytes: u64,
}

impl Equal {
    /// Both together.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            entries: self.entries + other.entries,
            files: self.files + other.files,
            bytes: self.bytes + other.bytes,
        }
    }
}

/// Compares a file or a tree with its copy.
///
/// # Errors
/// They differ: the first differences are named. Or one of them cannot be read.
pub(super) fn compare(original: &Path, copy: &Path) -> Result<Equal> {
    let (left, right) = std::thread::scope(|scope| {
        let left = scope.spawn(|| Tree::read(original));
        let right = Tree::read(copy);
        (left.join(), right)
    });
    let Ok(left) = left else { bail!("{} could not be read", original.display()) };
    let (left, right) = (left?, right?);
    let differences = left.differences(&right);
    if !differences.is_empty() {
        let shown: Vec<_> = differences.iter().take(DIFFERENCES_SHOWN).map(String::as_str).collect();
        bail!(
            "{} and {} differ in {} places: {}",
            original.display(),
            copy.display(),
            differences.len(),
            shown.join("; ")
        );
    }
    Ok(left.total())
}

/// Entries by their path below the root; the root's is empty.
struct Tree {
    entries: BTreeMap<PathBuf, Entry>,
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    kind: Kind,
    /// Permissions without the set-id bits, which a receiver does not take from a peer. `None` for links: theirs mean
    /// nothing.
    mode: Option<u32>,
    changed: (i64, i64),
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    File { bytes: u64, digest: String },
    Directory,
    Link(PathBuf),
}

impl Tree {
    fn read(root: &Path) -> Result<Self> {
        let digests = digests(root)?;
        let mut entries = BTreeMap::new();
        let mut waiting = vec![root.to_owned()];
        while let Some(path) = waiting.pop() {
            let metadata = path.symlink_metadata().with_context(|| path.display().to_string())?;
            let kind = if metadata.is_dir() {
                for entry in fs::read_dir(&path).with_context(|| path.display().to_string())? {
                    waiting.push(entry?.path());
                }
                Kind::Directory
            } else if metadata.is_symlink() {
                Kind::Link(fs::read_link(&path)?)
            } else {
                let digest = digests.get(&path).cloned().unwrap_or_default();
                Kind::File { bytes: metadata.len(), digest }
            };
            let mode = (!metadata.is_symlink()).then_some(metadata.mode() & 0o1777);
            let changed = (metadata.mtime(), metadata.mtime_nsec());
            let below = path.strip_prefix(root).unwrap_or(&path).to_owned();
            entries.insert(below, Entry { kind, mode, changed });
        }
        Ok(Self { entries })
    }

    fn differences(&self, other: &Self) -> Vec<String> {
        let missing = self.entries.keys().filter(|path| !other.entries.contains_key(*path));
        let strange = other.entries.keys().filter(|path| !self.entries.contains_key(*path));
        let mut found: Vec<_> = missing.map(|path| format!("{} is missing", path.display())).collect();
        found.extend(strange.map(|path| format!("{} is new", path.display())));
        for (path, entry) in &self.entries {
            if let Some(copied) = other.entries.get(path)
                && let Some(what) = entry.difference(copied)
            {
                found.push(format!("{}: {what}", path.display()));
            }
        }
        found
    }

    fn total(&self) -> Equal {
        let mut total = Equal::default();
        for entry in self.entries.values() {
            total.entries += 1;
            if let Kind::File { bytes, .. } = &entry.kind {
                total.files += 1;
                total.bytes += bytes;
            }
        }
        total
    }
}

impl Entry {
    fn difference(&self, copied: &Self) -> Option<&'static str> {
        match (&self.kind, &copied.kind) {
            (Kind::File { digest, .. }, Kind::File { .. }) if digest.is_empty() => {
                return Some("could not be read");
            }
            (Kind::File { .. }, Kind::File { .. }) if self.kind != copied.kind => {
                return Some("other content");
            }
            (Kind::Link(_), Kind::Link(_)) if self.kind != copied.kind => return Some("other target"),
            _ if self.kind != copied.kind => return Some("other kind"),
            _ => {}
        }
        if self.mode != copied.mode {
            return Some("other permissions");
        }
        (self.changed != copied.changed).then_some("other time of change")
    }
}

/// BLAKE2b-512 of every file of a tree, by path.
fn digests(root: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let mut find = Command::new("find");
    find.arg(root).args(["-type", "f", "-print0"]).stdin(Stdio::null());
    let found = find.output().context("find")?;
    let mut hash = Command::new("xargs");
    hash.args(["--null", "--no-run-if-empty", "b2sum", "--binary", "--zero", "--"]);
    let mut child = hash.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("xargs")?;
    let mut paths = child.stdin.take().context("xargs")?;
    // Written beside the reading: both pipes are bounded.
    let writer = std::thread::spawn(move || paths.write_all(&found.stdout));
    let output = child.wait_with_output().context("b2sum")?;
    let is_written = writer.join().is_ok_and(|written| written.is_ok());
    if !(output.status.success() && is_written && found.status.success()) {
        bail!("the digests of {} could not be computed", root.display());
    }
    Ok(output.stdout.split(|byte| *byte == 0).filter_map(digest_line).collect())
}

/// `DIGEST *PATH`, as b2sum(1) writes it.
fn digest_line(line: &[u8]) -> Option<(PathBuf, String)> {
    let (digest, rest) = line.split_at_checked(DIGEST_DIGITS)?;
    let path = rest.get(2..)?;
    Some((PathBuf::from(OsStr::from_bytes(path)), String::from_utf8_lossy(digest).into_owned()))
}

const DIGEST_DIGITS: usize = 128;
const DIFFERENCES_SHOWN: usize = 5;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// Two equal trees, and what is to be done to the second.
    fn compared(name: &str, change: impl Fn(&Path)) -> Result<Equal> {
        let root = std::env::temp_dir().join(format!("dwcp-demo-verify-{}-{name}", std::process::id()));
        for end in ["a", "b"] {
            let tree = root.join(end);
            fs::create_dir_all(tree.join("folder")).unwrap();
            fs::write(tree.join("folder/new\nline"), "content").unwrap();
            symlink("target", tree.join("link")).unwrap();
        }
        // What `cp -a` copies is equal.
        let copy = root.join("c");
        crate::shell::run_quietly(Command::new("cp").arg("-a").arg(root.join("a")).arg(&copy)).unwrap();
        change(&copy);
        let result = compare(&root.join("a"), &copy);
        fs::remove_dir_all(&root).unwrap();
        result
    }

    #[test]
    fn equal_trees_are_counted() {
        let equal = compared("equal", |_| {}).unwrap();
        assert_eq!((equal.entries, equal.files, equal.bytes), (4, 1, 7));
        let twice = equal.and(equal);
        assert_eq!((twice.entries, twice.files, twice.bytes), (8, 2, 14));
    }

    #[test]
    fn every_difference_is_named() {
        let file = |tree: &Path| tree.join("folder/new\nline");
        let keep_time = |path: &Path, act: &dyn Fn()| {
            let time = path.metadata().unwrap().modified().unwrap();
            act();
            fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        };
        let content = |tree: &Path| keep_time(&file(tree), &|| fs::write(file(tree), "contenT").unwrap());
        let mode = |tree: &Path| fs::set_permissions(file(tree), fs::Permissions::from_mode(0o600)).unwrap();
        let time = |tree: &Path| {
            let opened = fs::File::options().write(true).open(file(tree)).unwrap();
            opened.set_modified(std::time::UNIX_EPOCH).unwrap();
        };
        let link = |tree: &Path| {
            fs::remove_file(tree.join("link")).unwrap();
            symlink("elsewhere", tree.join("link")).unwrap();
        };
        type Change<'a> = (&'a str, &'a dyn Fn(&Path));
        let changes: [Change<'_>; 6] = [
            ("other content", &content),
            ("other permissions", &mode),
            ("other time", &time),
            ("other target", &link),
            ("missing", &|tree| fs::remove_file(file(tree)).unwrap()),
            ("is new", &|tree| fs::write(tree.join("more"), "").unwrap()),
        ];
        for (number, (wanted, change)) in changes.into_iter().enumerate() {
            let error = compared(&number.to_string(), change).unwrap_err().to_string();
            assert!(error.contains(wanted), "{wanted}: {error}");
        }
    }
}
