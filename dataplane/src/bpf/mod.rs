//! bpf: to be written.
