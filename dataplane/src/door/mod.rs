//! door: to be written.
