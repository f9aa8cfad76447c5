//! The kernel programs inside a real kernel. Needs root, the built object and a kernel that allows it; says `skipped:`
//! otherwise.
mod departure;
mod guard;
mod lasting;
mod pacing;
mod packets;
mod support;
mod traffic;
