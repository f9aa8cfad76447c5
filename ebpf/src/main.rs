//! The kernel programs: one classifier, attached to ingress and egress of each interface by the dataplane's loader,
//! that counts packets and bytes per class and core. It changes no packet and decides nothing: it always passes the
//! packet on. On the host this file is a stub; `cargo xtask build-ebpf` builds the real thing.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    expect(unsafe_code, reason = "per-CPU map slots are raw pointers, program symbols have fixed names")
)]

#[cfg(target_arch = "bpf")]
mod classifier;

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
