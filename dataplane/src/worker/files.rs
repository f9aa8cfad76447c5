//! Chunks from and to files: the engine names a file, this finds its handle here, hashes where the bytes are hot and
//! lets the proactor do the rest.
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dwcp_abi::wire::{CHUNK_BYTES, Code};
use dwcp_engine::{BufferId, Digest, FileId, Input, Source, SubtreeDigests, TaskId, ZERO_CHUNK};
use dwcp_sys::proactor::{Errno, Handle};
use nix::sys::statfs::{HUGETLBFS_MAGIC, TMPFS_MAGIC, fstatfs};
use nix::sys::uio::{pread, pwrite};

use super::Worker;
use super::layout;
use super::timing::Over;
use super::token::Token;
use crate::baselines::{Against, FileBaseline};
use crate::tree::Partial;

/// Open files of the process, by the number that engines know. Workers look here once per file, then keep a handle.
#[derive(Default)]
pub struct FileTable {
    files: Mutex<(u64, HashMap<u64, Named>)>,
}

struct Named {
    file: Arc<OwnedFd>,
    path: Box<[u8]>,
    partial: Option<Arc<Partial>>,
    former: Option<Arc<FileBaseline>>,
    against: Option<Arc<Against>>,
}

impl FileTable {
    /// Takes a file in that is read.
    pub fn insert_source(&self, file: Arc<OwnedFd>) -> FileId {
        self.insert(Named { file, path: Box::default(), partial: None, former: None, against: None })
    }

    /// Takes a file in that is written. `path` is for messages, `partial` is where to note what is written, `former` what
    /// the file will replace.
    pub fn insert_target(
        &self,
        file: Arc<OwnedFd>,
        path: &[u8],
        partial: Option<Arc<Partial>>,
        former: Option<Arc<FileBaseline>>,
    ) -> FileId {
        self.insert(Named { file, path: path.into(), partial, former, against: None })
    }

    fn insert(&self, named: Named) -> FileId {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.0 += 1;
        let id = files.0;
        files.1.insert(id, named);
        FileId(id)
    }

    /// What a file's chunks are sent as differences to, from now on.
    pub fn set_against(&self, id: FileId, against: Arc<Against>) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(named) = files.1.get_mut(&id.0) {
            named.against = Some(against);
        }
    }

    /// That, if there is something.
    pub fn against(&self, id: FileId) -> Option<Arc<Against>> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.1.get(&id.0)?.against.clone()
    }

    /// What the file will replace, and its chunks may be made of.
    pub fn former(&self, id: FileId) -> Option<Arc<FileBaseline>> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.1.get(&id.0)?.former.clone()
    }

    /// What to call the file in a message.
    pub fn path(&self, id: FileId) -> String {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.1.get(&id.0).map_or_else(String::new, |named| String::from_utf8_lossy(&named.path).into_owned())
    }

    /// The file, while nobody removed it.
    fn get(&self, id: FileId) -> Option<(Arc<OwnedFd>, Option<Arc<Partial>>)> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.1.get(&id.0).map(|named| (Arc::clone(&named.file), named.partial.clone()))
    }

    /// Forgets the file. Workers close their handles when they are done with them.
    pub fn remove(&self, id: FileId) {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&id.0);
    }
}

/// A worker's handles of files.
#[derive(Default)]
pub(super) struct Handles {
    handles: HashMap<FileId, Cached>,
    /// Chunks that were written in this turn and are not noted yet.
    written: Vec<(Arc<Partial>, u32)>,
}

struct Cached {
    path: Path,
    partial: Option<Arc<Partial>>,
    in_flight: u32,
    used: Instant,
}

/// How a file's bytes are moved.
#[derive(Clone)]
enum Path {
    /// By the proactor: the file may have to wait for a disk.
    Ring(Handle),
    /// At once: the file lives in memory. io_uring would hand each operation to a thread of its own, on another core,
    /// for such file systems have no way to say that they would not block.
    Now(Arc<OwnedFd>),
}

/// A chunk on its way from or to a file.
#[derive(Clone, Copy)]
pub(super) struct FileTask {
    file: FileId,
    length: u32,
    offset: u64,
    buffer: BufferId,
    object_size: u64,
    hash: [u8; 32],
}

/// Unused handles are closed after so long. Files that nobody has open any more stay on disk until then.
const UNUSED_MAX: Duration = Duration::from_secs(5);

impl Worker {
    pub(super) fn read_chunk(
        &mut self,
        task: TaskId,
        chunk: (FileId, u64, u32),
        source: Source,
        buffer: BufferId,
        digest: Digest,
    ) {
        let (file, offset, length) = chunk;
        let object_size = digest.object_size;
        if source == Source::Hole {
            let hash = SubtreeDigests::leaf(&ZERO_CHUNK[..length as usize], offset, object_size);
            return self.engine_input(Input::Read { task, result: Ok(hash) });
        }
        let Some(path) = self.path_of(file) else {
            return self.engine_input(Input::Read { task, result: Err(Code::Io) });
        };
        self.file_tasks.insert(task, FileTask { file, length, offset, buffer, object_size, hash: [0; 32] });
        self.timing.reads(buffer);
        let span = layout::data(buffer, length);
        match path {
            Path::Ring(handle) => self.proactor.read_at(handle, offset, span, Token::Read(task).pack()),
            Path::Now(file) => {
                let result = read_all(&file, self.proactor.bytes_mut(span), offset);
                self.chunk_read(task, result.map(|count| count as u32));
            }
        }
    }

    pub(super) fn chunk_read(&mut self, task: TaskId, result: Result<u32, Errno>) {
        let Some(chunk) = self.file_tasks.remove(&task) else { return };
        self.release_handle(chunk.file);
        let result = match result {
            Ok(count) if count == chunk.length => {
                self.timing.over(chunk.buffer, Over::Read);
                let bytes = self.proactor.bytes(layout::data(chunk.buffer, chunk.length));
                let hash = SubtreeDigests::leaf(bytes, chunk.offset, chunk.object_size);
                self.timing.over(chunk.buffer, Over::HashRead);
                Ok(hash)
            }
            // Shorter than it was when it was found.
            Ok(_) => Err(Code::Changed),
            Err(_) => Err(Code::Io),
        };
        self.engine_input(Input::Read { task, result });
    }

    pub(super) fn write_chunk(
        &mut self,
        task: TaskId,
        chunk: (FileId, u64, u32),
        source: Source,
        buffer: BufferId,
        digest: Digest,
    ) {
        let (file, offset, length) = chunk;
        let object_size = digest.object_size;
        let Some(path) = self.path_to_write(file) else {
            let text = "the partial file is gone";
            return self.engine_input(Input::Written { task, result: Err(Code::Io), text });
        };
        if source == Source::Hole {
            self.note_written(file, offset);
            self.release_handle(file);
            let hash = SubtreeDigests::leaf(&ZERO_CHUNK[..length as usize], offset, object_size);
            return self.engine_input(Input::Written { task, result: Ok(hash), text: "" });
        }
        self.timing.over(buffer, Over::Place);
        let span = layout::data(buffer, length);
        let hash = SubtreeDigests::leaf(self.proactor.bytes(span), offset, object_size);
        self.timing.over(buffer, Over::HashWritten);
        self.file_tasks.insert(task, FileTask { file, length, offset, buffer, object_size, hash });
        match path {
            Path::Ring(handle) => self.proactor.write_at(handle, offset, span, Token::Write(task).pack()),
            Path::Now(file) => {
                let result = write_all(&file, self.proactor.bytes(span), offset);
                self.chunk_written(task, result.map(|count| count as u32));
            }
        }
    }

    pub(super) fn chunk_written(&mut self, task: TaskId, result: Result<u32, Errno>) {
        let Some(chunk) = self.file_tasks.remove(&task) else { return };
        match result {
            Ok(count) if count == chunk.length => {
                self.timing.over(chunk.buffer, Over::Write);
                self.note_written(chunk.file, chunk.offset);
            }
            Ok(_) | Err(_) => self.write_failed(chunk.file),
        }
        self.release_handle(chunk.file);
        match result {
            Ok(count) if count == chunk.length => {
                self.engine_input(Input::Written { task, result: Ok(chunk.hash), text: "" });
            }
            Ok(_) => {
                let text = "a write was cut short";
                self.engine_input(Input::Written { task, result: Err(Code::Io), text });
            }
            Err(errno @ (Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG)) => {
                let path = self.node.files.path(chunk.file);
                let text = format!(
                    "{path}: {}: make room at the receiver and start the transfer again",
                    errno.desc()
                );
                self.engine_input(Input::Written { task, result: Err(Code::NoSpace), text: &text });
            }
            Err(errno) => {
                let text = format!("writing at the receiver failed: {errno}");
                self.engine_input(Input::Written { task, result: Err(Code::Io), text: &text });
            }
        }
    }

    fn path_of(&mut self, file: FileId) -> Option<Path> {
        if let Some(cached) = self.handles.handles.get_mut(&file) {
            cached.in_flight += 1;
            cached.used = self.now;
            return Some(cached.path.clone());
        }
        let (descriptor, partial) = self.node.files.get(file)?;
        let path = if lives_in_memory(&descriptor) {
            Path::Now(descriptor)
        } else {
            Path::Ring(self.proactor.add(descriptor.try_clone().ok()?).ok()?)
        };
        let cached = Cached { path: path.clone(), partial, in_flight: 1, used: self.now };
        self.handles.handles.insert(file, cached);
        Some(path)
    }

    /// The way to a file that may still be written to; its partial file knows of the write then.
    fn path_to_write(&mut self, file: FileId) -> Option<Path> {
        let path = self.path_of(file)?;
        if self.partial_of(file).is_some_and(|partial| !partial.begin()) {
            self.release_handle(file);
            return None;
        }
        Some(path)
    }

    fn partial_of(&self, file: FileId) -> Option<&Arc<Partial>> {
        self.handles.handles.get(&file)?.partial.as_ref()
    }

    fn note_written(&mut self, file: FileId, offset: u64) {
        if let Some(partial) = self.partial_of(file).cloned() {
            self.handles.written.push((partial, (offset / u64::from(CHUNK_BYTES)) as u32));
        }
    }

    fn write_failed(&self, file: FileId) {
        if let Some(partial) = self.partial_of(file) {
            partial.end(1);
        }
    }

    /// Notes in the partial files what was written in this turn, a call for each run of chunks. Before the engine
    /// acknowledges it: what a sender knows to be written is not asked for again.
    pub(super) fn note_all_written(&mut self) {
        let mut run: Option<(Arc<Partial>, u32, u32)> = None;
        for (partial, chunk) in self.handles.written.drain(..) {
            match &mut run {
                Some((last, first, count)) if Arc::ptr_eq(last, &partial) && *first + *count == chunk => {
                    *count += 1
                }
                _ => {
                    if let Some((last, first, count)) = run.replace((partial, chunk, 1)) {
                        last.mark(first, count);
                    }
                }
            }
        }
        if let Some((last, first, count)) = run {
            last.mark(first, count);
        }
    }

    fn release_handle(&mut self, file: FileId) {
        if let Some(cached) = self.handles.handles.get_mut(&file) {
            cached.in_flight -= 1;
        }
    }

    /// The engine is done with a file.
    pub(super) fn close_file(&mut self, file: FileId) {
        self.node.files.remove(file);
        if self.handles.handles.get(&file).is_some_and(|cached| cached.in_flight == 0)
            && let Some(Cached { path: Path::Ring(handle), .. }) = self.handles.handles.remove(&file)
        {
            self.proactor.remove(handle);
        }
    }

    /// Closes handles that other workers' jobs left behind.
    pub(super) fn close_unused_files(&mut self) {
        let now = self.now;
        let unused = self.handles.handles.extract_if(|_, cached| {
            cached.in_flight == 0 && now.saturating_duration_since(cached.used) > UNUSED_MAX
        });
        for (_, cached) in unused {
            if let Path::Ring(handle) = cached.path {
                self.proactor.remove(handle);
            }
        }
    }
}

fn lives_in_memory(file: &OwnedFd) -> bool {
    fstatfs(file).is_ok_and(|system| matches!(system.filesystem_type(), TMPFS_MAGIC | HUGETLBFS_MAGIC))
}

/// Reads until the buffer is full or the file ends.
fn read_all(file: &OwnedFd, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut done = 0;
    while done < buffer.len() {
        match pread(file, &mut buffer[done..], (offset + done as u64) as i64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

/// Writes everything: a file system that is full takes a part and says why at the rest.
fn write_all(file: &OwnedFd, bytes: &[u8], offset: u64) -> Result<usize, Errno> {
    let mut done = 0;
    while done < bytes.len() {
        match pwrite(file, &bytes[done..], (offset + done as u64) as i64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}
