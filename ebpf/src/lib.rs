//! The pure half of the kernel programs: reading headers ([`parse`]), choosing a class ([`class`]), rates of
//! connections ([`pace`]), aggregates ([`departure`]) and strangers ([`bucket`]). Called by `main.rs` inside the kernel
//! and by tests on the host. It touches no map and holds no `unsafe`.
#![cfg_attr(not(test), no_std)]

pub mod bucket;
pub mod class;
pub mod departure;
pub mod pace;
pub mod parse;
