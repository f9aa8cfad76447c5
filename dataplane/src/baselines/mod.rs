//! What both ends of a transfer have, so that only differences to it need to be sent. A receiver has the file that an
//! object replaces ([`contents`] knows its name by content); a sender has what it sent before ([`kept`]). Where both have
//! the same content, [`against`] makes it ready for the search.
mod against;
mod contents;
mod file;
mod kept;
mod maps;

pub use against::{Against, Ground, Map};
pub use contents::Contents;
pub use file::FileBaseline;
pub use kept::{Kept, KeptFigures};
