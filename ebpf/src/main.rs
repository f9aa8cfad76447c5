//! The kernel programs, which the dataplane's loader attaches: [`classifier`] to egress and ingress of each interface,
//! [`guard`] before it, [`socket`] to a control group. On the host this file is a stub; `cargo xtask build-ebpf` builds
//! the real thing.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        unsafe_code,
        reason = "map entries and contexts are raw pointers, program symbols have fixed names"
    )
)]

#[cfg(target_arch = "bpf")]
mod classifier;
#[cfg(target_arch = "bpf")]
mod guard;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod socket;

/// What the kernel is told about the licence; no helper that is used here asks for a particular one.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses any program in which this can be reached.
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("dwcp-ebpf runs in the kernel: build it with `cargo xtask build-ebpf`");
    std::process::exit(2);
}
