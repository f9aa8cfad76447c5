//! Finds out what this kernel, its sysctls and its limits grant a ring. Every refusal gets one short line.
#![expect(unsafe_code, reason = "registers the pool with the ring")]

use io_uring::{Builder, IoUring, cqueue, squeue};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};

use crate::buffers::Pool;
use crate::proactor::{Features, errno_of};

type RingBuilder = Builder<squeue::Entry, cqueue::Entry>;

/// A ring with every set-up flag that the kernel takes; or why there can be none.
pub(super) fn open_ring(entries: u32, completions: u32, features: &mut Features) -> Result<IoUring, String> {
    let mut accepted = IoUring::builder();
    accepted.setup_clamp().dontfork();
    let plain = accepted.build(PROBE_ENTRIES).map_err(|error| explain_ring(errno_of(error)))?;
    require_features(&plain)?;
    let mut grant = |name, set: fn(&mut RingBuilder)| {
        let mut candidate = accepted.clone();
        set(&mut candidate);
        let built = candidate.build(PROBE_ENTRIES).map(|_| accepted = candidate);
        let outcome = built.map_err(|error| explain_flag(errno_of(error)));
        let granted = outcome.is_ok();
        features.record(name, outcome);
        granted
    };
    grant("SUBMIT_ALL", |ring| {
        ring.setup_submit_all();
    });
    grant("SINGLE_ISSUER", |ring| {
        ring.setup_single_issuer();
    });
    let deferred = grant("DEFER_TASKRUN", |ring| {
        ring.setup_defer_taskrun().setup_taskrun_flag();
    });
    if deferred {
        features.refused("COOP_TASKRUN", "DEFER_TASKRUN does more");
    } else {
        grant("COOP_TASKRUN", |ring| {
            ring.setup_coop_taskrun().setup_taskrun_flag();
        });
    }
    let completions = completions.max(2 * entries).next_power_of_two();
    accepted.setup_cqsize(completions).build(entries).map_err(|error| explain_ring(errno_of(error)))
}

/// What the backend cannot do without; all of it is in Linux 5.13.
fn require_features(ring: &IoUring) -> Result<(), String> {
    let parameters = ring.params();
    let needs = [
        (parameters.is_feature_nodrop(), "NODROP"),
        (parameters.is_feature_ext_arg(), "EXT_ARG"),
        (parameters.is_feature_fast_poll(), "FAST_POLL"),
        (parameters.is_feature_resource_tagging(), "RSRC_TAGS (Linux 5.13)"),
    ];
    match needs.iter().find(|(present, _)| !present) {
        Some((_, name)) => Err(format!("the kernel lacks IORING_FEAT_{name}")),
        None => Ok(()),
    }
}

/// Registers the pool as one buffer.
pub(super) fn register_buffers(ring: &IoUring, pool: &Pool) -> Result<(), String> {
    let mapping = pool.mapping();
    let whole = libc::iovec { iov_base: mapping.start().cast(), iov_len: mapping.length() };
    // SAFETY: the range is the pool's mapping, which outlives the ring: the proactor drops the ring first.
    let registered = unsafe { ring.submitter().register_buffers(&[whole]) };
    registered.map_err(|error| match errno_of(error) {
        Errno::ENOMEM => format!("RLIMIT_MEMLOCK {}", limit_text(Resource::RLIMIT_MEMLOCK)),
        errno => errno.desc().to_owned(),
    })
}

/// Makes an empty table for as many files as are wanted and allowed, and returns its size.
pub(super) fn register_files(ring: &IoUring, wanted: u32) -> Result<u32, String> {
    let (allowed, _) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|errno| errno.desc().to_owned())?;
    let count = wanted.min(u32::try_from(allowed).unwrap_or(u32::MAX));
    if count == 0 {
        return Ok(0);
    }
    match ring.submitter().register_files_sparse(count).map_err(errno_of) {
        Ok(()) => Ok(count),
        Err(Errno::EINVAL) => Err("the kernel lacks sparse tables (Linux 5.19)".to_owned()),
        Err(errno) => Err(errno.desc().to_owned()),
    }
}

fn explain_ring(errno: Errno) -> String {
    match errno {
        Errno::ENOSYS => "the kernel or a seccomp filter does not know it".to_owned(),
        Errno::EPERM => match disabled_sysctl() {
            Some(value) => format!("sysctl kernel.io_uring_disabled is {value}"),
            None => "not permitted (seccomp or a security module)".to_owned(),
        },
        Errno::ENOMEM => format!("no memory (RLIMIT_MEMLOCK {})", limit_text(Resource::RLIMIT_MEMLOCK)),
        errno => errno.desc().to_owned(),
    }
}

fn explain_flag(errno: Errno) -> String {
    match errno {
        Errno::EINVAL => "the kernel does not know it".to_owned(),
        errno => errno.desc().to_owned(),
    }
}

/// The sysctl's value where it forbids anything.
fn disabled_sysctl() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    let value = text.trim().to_owned();
    (value != "0").then_some(value)
}

fn limit_text(resource: Resource) -> String {
    match getrlimit(resource) {
        Ok((soft, _)) if soft == nix::libc::RLIM_INFINITY => "unlimited".to_owned(),
        Ok((soft, _)) if soft >= 1 << 20 => format!("{} MiB", soft >> 20),
        Ok((soft, _)) => format!("{} KiB", soft >> 10),
        Err(errno) => errno.desc().to_owned(),
    }
}

/// Rings that only answer a question.
const PROBE_ENTRIES: u32 = 4;
