//! The pure half of the kernel programs: reading headers ([`parse`]) and choosing a class ([`class`]). Called by
//! `main.rs` inside the kernel and by tests on the host. It touches no map and holds no `unsafe`.
#![cfg_attr(not(test), no_std)]

pub mod class;
pub mod parse;
