//! Parts of objects that the receiver holds of a former attempt. They are read and hashed at their job's home, because
//! the digest is of the whole object, and beside the lanes, which meanwhile send the rest.
use dwcp_abi::wire::Code;

use super::{Engine, Piece, Task};
use crate::io::{BufferId, Digest, Hash, JobKey, Output, Source, TaskId};

/// Reads of a worker at once: enough to keep a disk busy, few against its buffers.
const HASHING_MAX: u32 = 4;

impl Engine {
    /// Starts reading what is known, as far as there is room for it. Goes first when a buffer is free: otherwise lanes
    /// that always have something to send would keep it from ever ending.
    pub(super) fn hash_known(&mut self) {
        while self.hashing < HASHING_MAX {
            let free = !self.free_send.is_empty();
            let next = self.sends.iter_mut().find_map(|(&job, send)| {
                let extent = send.known.front_mut().filter(|extent| free || extent.source == Source::Hole)?;
                let piece = extent.cut();
                if extent.start >= extent.end {
                    send.known.pop_front();
                }
                Some((job, send.attempt, piece))
            });
            let Some((job, attempt, piece)) = next else { return };
            self.hash_piece(job, attempt, piece);
        }
    }

    fn hash_piece(&mut self, job: JobKey, attempt: u32, piece: Piece) {
        let buffer = match piece.source {
            Source::File => self.free_send.pop(),
            Source::Hole => None,
        };
        self.hashing += 1;
        let task = self.tasks.insert(Task::Known { job, attempt, piece, buffer });
        self.outputs.push_back(Output::Read {
            task: TaskId(task),
            file: piece.file,
            offset: piece.offset,
            length: piece.length as u32,
            source: piece.source,
            buffer: buffer.unwrap_or(BufferId(u32::MAX)),
            digest: Digest { object_size: piece.size },
        });
    }

    /// A known part was read and hashed.
    pub(super) fn known_read(&mut self, task: TaskId, result: Result<Hash, Code>) {
        let Some(Task::Known { job, attempt, piece, buffer }) = self.tasks.remove(task.0) else { return };
        self.hashing -= 1;
        if let Some(buffer) = buffer {
            self.release_send(buffer);
        }
        self.part_read(job, attempt, piece.object, piece.offset, result);
        self.hash_known();
        self.pump_all();
    }
}
