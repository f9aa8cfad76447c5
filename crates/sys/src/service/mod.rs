//! What a process and its service manager say to each other: states and descriptors to keep go to `$NOTIFY_SOCKET`
//! (sd_notify(3)), kept descriptors come back at the next start (sd_listen_fds(3)). [`Notifier`] and [`inherited`] are
//! the process's side; [`Store`] is the manager's, for `dwcp server`, which is one where there is no systemd.
mod inherited;
mod notify;
mod store;

pub use inherited::inherited;
pub use notify::Notifier;
pub use store::{KEPT_MAX, Store, Told};

/// Longest name of a kept descriptor (sd_pid_notify_with_fds(3)).
pub const NAME_BYTES_MAX: usize = 255;

/// Whether systemd would take it as a name: printable ASCII without a colon.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b':')
}
