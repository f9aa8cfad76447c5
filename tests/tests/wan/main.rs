//! The link emulator's acceptance: delay, rate, losses and integrity of what real sockets send through it. Each test
//! needs root and `/dev/net/tun` and XX The link's own decisions are tested beside its code.
mod accuracy;
mod losses;
mod stream;

use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dwcp_wan::{Emulator, Link, Snapshot, unavailable};

/// A link, and the turn to have one: two at a time would make each other late.
struct Lane {
    emulator: Emulator,
    _turn: MutexGuard<'static, ()>,
}

impl Lane {
    /// Ends the link; what it counted. `None` = the emulator could not carry something, which a line says.
    fn stop(self) -> Option<Snapshot> {
        let snapshot = self.emulator.stop().expect("the relay ran to its end");
        let refused = snapshot.there.refused + snapshot.back.refused;
        if refused > 0 {
            println!("skipped: the emulator could not carry {refused} packets");
        }
        (refused == 0).then_some(snapshot)
    }
}

impl Deref for Lane {
    type Target = Emulator;

    fn deref(&self) -> &Emulator {
        &self.emulator
    }
}

/// A link, or a line that says why there is none.
fn start(link: &Link) -> Option<Lane> {
    // A test that failed has left nothing behind.
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(reason) = unavailable() {
        println!("skipped: {reason}");
        return None;
    }
    let emulator = Emulator::start(link).expect("a link can be made here");
    Some(Lane { emulator, _turn: turn })
}

fn both_ways(spec: &str) -> Link {
    Link::both_ways(spec).expect("a link's description")
}

static TURN: Mutex<()> = Mutex::new(());
