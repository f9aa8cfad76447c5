//! Directory trees: [`Scanner`] reads one into packs of entries, [`Receiver`] makes one from packs.
//!
//! Helper threads call both; every call may block on the file system, none on the network. Content of objects
//! (files too large for a pack) is read and written elsewhere, through the descriptors handed out here. Every
//! path is opened one component at a time relative to a directory that is open already, and links are never
//! followed: no name from a peer can leave its root, whatever a pack or another process plants there.
mod attributes;
mod beneath;
mod changes;
mod digest;
mod directories;
mod existing;
mod extents;
mod extra;
mod failure;
mod filters;
mod finals;
mod finish;
mod flusher;
mod found;
mod leftovers;
mod links;
mod metadata;
mod name;
mod notes;
mod objects;
mod options;
mod owners;
mod partial;
mod pattern;
mod place;
mod receiver;
mod rehearsal;
mod scanner;
mod sent;
mod source;
mod special;
mod staged;
mod store;
mod sweep;
mod visit;
mod volumes;

pub use changes::Changes;
pub use digest::digest_of;
pub use extents::{Extent, Extents, holes};
pub use failure::{Failure, TreeError};
pub use filters::Filters;
pub use flusher::Flusher;
pub use found::{Fingerprint, FoundObject, verify_unchanged};
pub use notes::Notes;
pub use objects::{OpenedObject, Opening, Partly};
pub use options::Options;
pub use partial::Partial;
pub use place::Root;
pub use receiver::{Receiver, Totals, Unpacked};
pub use scanner::{Filled, Limits, PACK_BYTES_MIN, Scanner};
pub use source::{Base, Source};
