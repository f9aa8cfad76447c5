//! Entry point of `dwcp-dataplane`.
fn main() {}
