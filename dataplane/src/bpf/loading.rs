//! Loading in a thread of its own: on a machine that has no time the verifier may take a minute, and the thread that asks
//! for the programs feeds the service manager's watchdog meanwhile.
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;

use super::{Options, Programs, Unavailable};

/// Programs on their way into the kernel. Dropping it lets the thread end by itself, and what it loaded goes.
#[derive(Debug)]
pub struct Loading(Receiver<Result<Programs, Unavailable>>);

impl Loading {
    /// Begins.
    ///
    /// # Errors
    /// [`Unavailable::NoThread`].
    pub fn start(options: Options) -> Result<Self, Unavailable> {
        let (sender, receiver) = sync_channel(1);
        let load = move || {
            // Nobody listens where the programs are not wanted any more: they are dropped here.
            drop(sender.send(Programs::load(options)));
        };
        thread::Builder::new()
            .name("dwcp-bpf".into())
            .spawn(load)
            .map_err(|error| Unavailable::NoThread { detail: error.to_string() })?;
        Ok(Self(receiver))
    }

    /// What came of it, once; `None` while it goes on.
    #[must_use]
    pub fn finished(&self) -> Option<Result<Programs, Unavailable>> {
        match self.0.try_recv() {
            Ok(result) => Some(result),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                Some(Err(Unavailable::NoThread { detail: "it ended by itself".to_owned() }))
            }
        }
    }
}
