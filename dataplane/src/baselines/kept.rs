//! What this node has sent, kept so that the next version needs to be sent only as its differences. Files in the state
//! directory, each with the name of its content; whatever its name says, a file is hashed before it is used. A thread
//! copies what is to be kept after it was sent, and deletes what was of use longest ago when there is too much.
use std::fs::{self, File};
use std::io::{self, Seek as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use dwcp_abi::wire::{CHUNK_BYTES, ContentId, Held};
use dwcp_hde::{VersionRecord, VersionRules, Versions};
use nix::sys::statvfs::statvfs;

use super::maps::Maps;
use super::{Against, FileBaseline, Map};
use crate::tree::{Fingerprint, verify_unchanged};

/// Versions of what was sent. Without a directory nothing is kept.
#[derive(Default)]
pub struct Kept {
    store: Option<Arc<Store>>,
    orders: Option<Sender<Order>>,
    named: AtomicU64,
    found: AtomicU64,
}

/// What there is, and what it was good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptFigures {
    /// Versions.
    pub kept: u64,
    /// Bytes of them.
    pub kept_bytes: u64,
    /// Times that a receiver named what it has.
    pub named: u64,
    /// Times that this was here, too.
    pub found: u64,
}

struct Store {
    directory: PathBuf,
    versions: Mutex<Versions>,
    maps: Maps,
}

#[derive(Debug)]
struct Order {
    file: Arc<OwnedFd>,
    seen: Fingerprint,
    content: ContentId,
}

/// Files that wait to be copied. More are not kept.
const ORDERS_MAX: usize = 1024;
/// Shorter files gain nothing worth a file of their own.
const KEPT_BYTES_MIN: u64 = CHUNK_BYTES as u64 / 2;
/// A version takes at most this part of the store.
const SHARE_MAX: u64 = 2;
/// How exactly the disk knows when a version was last of use.
const DATED_EVERY: Duration = Duration::from_secs(3600);
/// Bytes that stay free on the store's file system.
const FREE_BYTES_MIN: u64 = 1 << 30;

impl Kept {
    /// Keeps versions below the state directory. What lies there already is known again.
    ///
    /// # Errors
    /// The directory cannot be made or read, or there is no thread.
    pub fn open(state: &Path) -> io::Result<Self> {
        let directory = state.join("baselines");
        fs::create_dir_all(&directory)?;
        let rules = VersionRules { chain_max: 0, interval: Duration::ZERO, bytes_max: u64::MAX };
        let mut versions = Versions::new(rules);
        for entry in fs::read_dir(&directory)?.filter_map(Result::ok) {
            match (content_of(&entry.file_name()), entry.metadata()) {
                (Some(content), Ok(metadata)) => {
                    let used_at = metadata.modified().ok().map_or(Duration::ZERO, since_epoch);
                    let stored_bytes = metadata.len();
                    versions.insert(VersionRecord { content, parent: None, stored_bytes, used_at });
                }
                // A copy that was not finished, or nothing of ours.
                _ => drop(fs::remove_file(entry.path())),
            }
        }
        let store = Arc::new(Store { directory, versions: Mutex::new(versions), maps: Maps::default() });
        let (orders, received) = bounded(ORDERS_MAX);
        let shared = Arc::clone(&store);
        thread::Builder::new().name("baselines".into()).spawn(move || shared.run(&received))?;
        Ok(Self { store: Some(store), orders: Some(orders), ..Self::default() })
    }

    /// Bytes that may be kept, as configured.
    pub fn limit(&self, bytes_max: u64) {
        if let Some(store) = &self.store {
            let rules = VersionRules { chain_max: 0, interval: Duration::ZERO, bytes_max };
            store.lock().set_rules(rules);
            store.prune();
        }
    }

    /// Keeps a file that was sent, once somebody has time, if it still is what it was.
    pub fn keep(&self, file: Arc<OwnedFd>, seen: Fingerprint, content: ContentId) {
        let Some(orders) = &self.orders else { return };
        if let Err(TrySendError::Full(_)) = orders.try_send(Order { file, seen, content }) {
            tracing::debug!("too many files wait to be kept: the next version of one is sent as a whole");
        }
    }

    /// Makes a version ready to be searched; none where it is not here.
    #[must_use]
    pub fn find(&self, held: Held) -> Option<Against> {
        self.named.fetch_add(1, Ordering::Relaxed);
        let against = self.look(held)?;
        self.found.fetch_add(1, Ordering::Relaxed);
        Some(against)
    }

    fn look(&self, held: Held) -> Option<Against> {
        let store = self.store.as_ref()?;
        match store.open(held) {
            Ok(Some((baseline, map))) => {
                store.used(held.content);
                Against::new(baseline, map).ok()
            }
            Ok(None) => {
                tracing::warn!(content = %name(held.content), "a kept version is not what its name says: it is deleted");
                store.remove(held.content);
                None
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(content = %name(held.content), %error, "a kept version cannot be read");
                None
            }
        }
    }

    /// What there is.
    #[must_use]
    pub fn figures(&self) -> KeptFigures {
        let (named, found) = (self.named.load(Ordering::Relaxed), self.found.load(Ordering::Relaxed));
        let (kept, kept_bytes) = self.store.as_ref().map_or((0, 0), |store| {
            let versions = store.lock();
            (versions.count() as u64, versions.stored_bytes())
        });
        KeptFigures { kept, kept_bytes, named, found }
    }
}

impl Store {
    fn run(&self, orders: &Receiver<Order>) {
        while let Ok(Order { file, seen, content }) = orders.recv() {
            let size = seen.size.unsigned_abs();
            if self.is_known(content) {
                self.used(content);
            } else if size >= KEPT_BYTES_MIN
                && size <= self.lock().rules().bytes_max / SHARE_MAX
                && let Err(error) = self.copy(&file, &seen, content)
            {
                tracing::warn!(%error, "what was sent is not kept: its next version is sent as a whole");
            }
        }
    }

    fn copy(&self, file: &Arc<OwnedFd>, seen: &Fingerprint, content: ContentId) -> io::Result<()> {
        let size = seen.size.unsigned_abs();
        let free = statvfs(&self.directory)?;
        if free.blocks_available().saturating_mul(free.fragment_size()) < size + FREE_BYTES_MIN {
            return Err(io::Error::other("the state directory's disk is nearly full"));
        }
        let temporary = self.directory.join("copy");
        let mut from = File::from(file.try_clone()?);
        from.rewind()?;
        let options = || File::options().write(true).create(true).truncate(true).mode(0o600).to_owned();
        let copied = options().open(&temporary).and_then(|mut to| io::copy(&mut from, &mut to));
        if copied? != size || !verify_unchanged(file, seen) {
            return fs::remove_file(&temporary);
        }
        fs::rename(&temporary, self.path(content))?;
        let used_at = since_epoch(SystemTime::now());
        self.lock().insert(VersionRecord { content, parent: None, stored_bytes: size, used_at });
        self.prune();
        if self.open(Held { content, length: size })?.is_none() {
            self.remove(content);
        }
        Ok(())
    }

    /// A version and its map; none where the file is not what its name says.
    fn open(&self, held: Held) -> io::Result<Option<(FileBaseline, Map)>> {
        let file = File::open(self.path(held.content))?;
        if file.metadata()?.len() != held.length {
            return Err(io::ErrorKind::NotFound.into());
        }
        let baseline = FileBaseline::new(file.try_clone()?.into(), held.content, held.length);
        Ok(self.maps.of(held.content, &file, &baseline)?.map(|map| (baseline, map)))
    }

    fn is_known(&self, content: ContentId) -> bool {
        self.lock().chain(content).is_ok()
    }

    fn used(&self, content: ContentId) {
        let now = SystemTime::now();
        self.lock().touch(content, since_epoch(now));
        let dated = File::open(self.path(content)).and_then(|file| {
            let before = file.metadata()?.modified()?;
            let is_recent = now.duration_since(before).is_ok_and(|age| age < DATED_EVERY);
            // The map is of the file as it is: it is touched seldom.
            if is_recent { Ok(()) } else { file.set_modified(now) }
        });
        if let Err(error) = dated {
            tracing::debug!(%error, "a kept version keeps its former time");
        }
    }

    fn prune(&self) {
        let pruned = self.lock().prune();
        for content in pruned {
            self.delete(content);
        }
    }

    fn remove(&self, content: ContentId) {
        let gone = self.lock().remove_broken(content);
        for content in gone {
            self.delete(content);
        }
    }

    fn delete(&self, content: ContentId) {
        match fs::remove_file(self.path(content)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "a kept version cannot be deleted");
            }
            _ => {}
        }
    }

    fn path(&self, content: ContentId) -> PathBuf {
        self.directory.join(name(content))
    }

    fn lock(&self) -> MutexGuard<'_, Versions> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name(content: ContentId) -> String {
    format!("{:032x}", u128::from_be_bytes(content.0))
}

fn content_of(name: &std::ffi::OsStr) -> Option<ContentId> {
    let name = name.to_str().filter(|name| name.len() == 32)?;
    u128::from_str_radix(name, 16).ok().map(|number| ContentId(number.to_be_bytes()))
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn send(kept: &Kept, path: &Path, bytes: &[u8]) -> Held {
        fs::write(path, bytes).unwrap();
        let file = Arc::new(OwnedFd::from(File::open(path).unwrap()));
        let seen = Fingerprint::of_file(&file).unwrap();
        let content = dwcp_hde::content_id(bytes);
        kept.keep(file, seen, content);
        Held { content, length: bytes.len() as u64 }
    }

    fn wait_for(kept: &Kept, versions: u64) {
        let start = Instant::now();
        while kept.figures().kept != versions {
            assert!(start.elapsed() < Duration::from_secs(20), "{:?}", kept.figures());
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn wait_to_find(kept: &Kept, held: Held) {
        let start = Instant::now();
        while kept.find(held).is_none() {
            assert!(start.elapsed() < Duration::from_secs(20), "{held:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn what_was_sent_is_found_again_and_what_is_damaged_is_not() {
        let space = tempfile::tempdir().unwrap();
        let path = space.path().join("source");
        let first = {
            let kept = Kept::open(space.path()).unwrap();
            let first = send(&kept, &path, &[7; 300_000]);
            wait_for(&kept, 1);
            assert!(kept.find(first).is_some());
            assert!(kept.find(first).is_some());
            assert_eq!(kept.store.as_ref().unwrap().maps.count(), 1, "its map was drawn once");
            assert!(kept.find(Held { length: 5, ..first }).is_none(), "its length is another one");
            first
        };
        let kept = Kept::open(space.path()).unwrap();
        assert!(kept.find(first).is_some(), "it outlives the process");
        let second = send(&kept, &path, &[8; 300_000]);
        wait_for(&kept, 2);
        fs::write(space.path().join("baselines").join(name(second.content)), [9; 300_000]).unwrap();
        assert!(kept.find(second).is_none());
        let figures = kept.figures();
        assert_eq!((figures.kept, figures.kept_bytes), (1, 300_000));
        assert_eq!((figures.named, figures.found), (2, 1));
    }

    #[test]
    fn the_store_keeps_its_bound_and_what_changed_is_not_kept() {
        let space = tempfile::tempdir().unwrap();
        let kept = Kept::open(space.path()).unwrap();
        kept.limit(1_000_000);
        for number in 0..5u8 {
            send(
                &kept,
                &space.path().join(format!("{number}")),
                &vec![number; 300_000 + usize::from(number)],
            );
        }
        let last = send(&kept, &space.path().join("last"), &[77; 400_000]);
        wait_to_find(&kept, last);
        assert!(kept.figures().kept_bytes <= 1_000_000);
        send(&kept, &space.path().join("long"), &[1; 600_000]);
        let path = space.path().join("changes");
        let file = File::create(&path).unwrap();
        file.set_len(300_000).unwrap();
        let file = Arc::new(OwnedFd::from(File::open(&path).unwrap()));
        let seen = Fingerprint { size: 300_000, ..Fingerprint::of_file(&file).unwrap() };
        fs::write(&path, [3; 300_000]).unwrap();
        kept.keep(file, seen, ContentId([4; 16]));
        let after = send(&kept, &space.path().join("after"), &[5; 300_000]);
        wait_to_find(&kept, after);
        assert!(kept.find(Held { content: ContentId([4; 16]), length: 300_000 }).is_none());
    }
}
