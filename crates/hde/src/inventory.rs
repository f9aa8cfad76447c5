//! What one end has, by chunk, and how the other learns it cheaply. The sender says of what its object consists (a
//! recipe, `dwcp_abi::wire::RecipeHead`), the receiver answers a bit per chunk; what is there is not sent. One round trip
//! for as many objects as the caller likes, 0.03 % of their bytes. Pure data: the dataplane owns the store behind it.
use std::collections::HashMap;

use dwcp_abi::wire::ContentId;

use crate::{Chunk, Sketch};

/// Where a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// The stored object.
    pub content: ContentId,
    /// Where in it.
    pub offset: u64,
    /// The chunk's bytes.
    pub length: u32,
}

/// Chunks of all stored objects, at most so many.
#[derive(Debug)]
pub struct Inventory {
    chunks: HashMap<ContentId, Location>,
    objects: HashMap<ContentId, Object>,
    chunks_max: usize,
}

#[derive(Debug)]
struct Object {
    chunks: Vec<Chunk>,
    sketch: Sketch,
}

/// It would hold more than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an inventory of {chunks_max} chunks has no room for {chunks} more")]
pub struct InventoryFull {
    /// Chunks that were to be added.
    pub chunks: usize,
    /// Most that are kept.
    pub chunks_max: usize,
}

impl Inventory {
    /// For at most `chunks_max` chunks, about 100 bytes each.
    #[must_use]
    pub fn new(chunks_max: usize) -> Self {
        Self { chunks: HashMap::new(), objects: HashMap::new(), chunks_max }
    }

    /// Adds a stored object. One that is there already is replaced.
    ///
    /// # Errors
    /// [`InventoryFull`]; nothing is added then, and whoever prunes has to prune first.
    pub fn insert(
        &mut self,
        content: ContentId,
        chunks: Vec<Chunk>,
        sketch: Sketch,
    ) -> Result<(), InventoryFull> {
        self.remove(content);
        let held: usize = self.objects.values().map(|object| object.chunks.len()).sum();
        if held + chunks.len() > self.chunks_max {
            return Err(InventoryFull { chunks: chunks.len(), chunks_max: self.chunks_max });
        }
        for chunk in &chunks {
            let location = Location { content, offset: chunk.offset, length: chunk.length };
            self.chunks.insert(chunk.id, location);
        }
        self.objects.insert(content, Object { chunks, sketch });
        Ok(())
    }

    /// Takes an object out: it was pruned, or its bytes are not what they were. Chunks that others have too stay.
    pub fn remove(&mut self, content: ContentId) {
        let Some(object) = self.objects.remove(&content) else { return };
        for chunk in &object.chunks {
            if self.chunks.get(&chunk.id).is_some_and(|location| location.content == content) {
                self.chunks.remove(&chunk.id);
            }
        }
        // Another object may have had a chunk whose entry named this one.
        let gone: Vec<ContentId> = object.chunks.iter().map(|chunk| chunk.id).collect();
        for (id, other) in &self.objects {
            for chunk in other.chunks.iter().filter(|chunk| gone.contains(&chunk.id)) {
                let location = Location { content: *id, offset: chunk.offset, length: chunk.length };
                self.chunks.entry(chunk.id).or_insert(location);
            }
        }
    }

    /// Where a chunk is, if its length is right.
    #[must_use]
    pub fn find(&self, id: ContentId, length: u32) -> Option<Location> {
        self.chunks.get(&id).copied().filter(|location| location.length == length)
    }

    /// The answer to a recipe: a bit per chunk, set where it is here, lowest bit first.
    pub fn answer(&self, recipe: impl Iterator<Item = (ContentId, u32)>) -> Vec<u8> {
        let mut bits = Vec::new();
        for (at, (id, length)) in recipe.enumerate() {
            if at % 8 == 0 {
                bits.push(0);
            }
            if let Some(last) = bits.last_mut()
                && self.find(id, length).is_some()
            {
                *last |= 1 << (at % 8);
            }
        }
        bits
    }

    /// The stored object that is most like one with this sketch, if any shares a fifth of it.
    #[must_use]
    pub fn most_like(&self, sketch: &Sketch) -> Option<ContentId> {
        let like = |object: &Object| object.sketch.likeness_thousandths(sketch);
        let best = self.objects.iter().map(|(id, object)| (like(object), *id)).max()?;
        (best.0 >= LIKE_THOUSANDTHS_MIN).then_some(best.1)
    }

    /// Objects that it knows.
    #[must_use]
    pub fn objects(&self) -> usize {
        self.objects.len()
    }
}

/// Below this a baseline helps less than reading it costs.
const LIKE_THOUSANDTHS_MIN: u32 = 200;

/// Ranges of an object that have to be sent, by the answer to its recipe. Neighbours are joined. An answer that is too
/// short means that nothing more is there.
#[must_use]
pub fn missing(chunks: &[Chunk], answer: &[u8]) -> Vec<std::ops::Range<u64>> {
    let mut ranges: Vec<std::ops::Range<u64>> = Vec::new();
    for (at, chunk) in chunks.iter().enumerate() {
        if answer.get(at / 8).is_some_and(|bits| bits & 1 << (at % 8) != 0) {
            continue;
        }
        let end = chunk.offset + u64::from(chunk.length);
        match ranges.last_mut() {
            Some(last) if last.end == chunk.offset => last.end = end,
            _ => ranges.push(chunk.offset..end),
        }
    }
    ranges
}
