//! Maps and records shared with the kernel programs.
