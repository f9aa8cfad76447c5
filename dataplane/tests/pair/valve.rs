//! A relay between two nodes that lets a certain number of bytes pass and then holds everything until it is opened:
//! what makes "in mid-transfer" a state that a test can stay in. It looks at no byte.
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use nix::sys::socket::{setsockopt, sockopt};

const BUFFER_BYTES: usize = 64 * 1024;

/// The relay; its threads end with the connections.
pub(crate) struct Valve {
    pub(crate) address: String,
    gate: Arc<Gate>,
}

struct Gate {
    /// Bytes from the dialling end that may still pass.
    left: Mutex<u64>,
    changed: Condvar,
}

impl Valve {
    /// Relays to `target`, at first only so many bytes of what comes from the end that dials.
    pub(crate) fn new(target: &str, bytes: u64) -> Self {
        Self::of_some(target, bytes, usize::MAX)
    }

    /// The same for the first so many connections: the others let everything pass.
    pub(crate) fn of_some(target: &str, bytes: u64, gated: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // What waits in front of the valve must be little against what is sent.
        setsockopt(&listener, sockopt::RcvBuf, &BUFFER_BYTES).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let gate = Arc::new(Gate { left: Mutex::new(bytes), changed: Condvar::new() });
        let (shared, target) = (Arc::clone(&gate), target.to_owned());
        thread::spawn(move || {
            for (number, dialled) in listener.incoming().map_while(Result::ok).enumerate() {
                // Nobody there: the end that dials sees its connection closed.
                let Ok(accepted) = TcpStream::connect(&target) else { continue };
                relay(&dialled, &accepted, (number < gated).then(|| Arc::clone(&shared)));
                relay(&accepted, &dialled, None);
            }
        });
        Self { address, gate }
    }

    /// Holds nothing back any more.
    pub(crate) fn open(&self) {
        self.allow(u64::MAX);
    }

    /// Lets so many more bytes pass, and no more even if it was open.
    pub(crate) fn allow(&self, bytes: u64) {
        let mut left = self.gate.left.lock().unwrap();
        *left = if *left == u64::MAX { bytes } else { left.saturating_add(bytes) };
        self.gate.changed.notify_all();
    }
}

impl Gate {
    /// Waits until something may pass, and says how much of `wanted`.
    fn pass(&self, wanted: usize) -> usize {
        let left = self.left.lock().unwrap();
        let mut left = self.changed.wait_while(left, |left| *left == 0).unwrap();
        let count = (wanted as u64).min(*left);
        if *left != u64::MAX {
            *left -= count;
        }
        count as usize
    }
}

fn relay(from: &TcpStream, to: &TcpStream, gate: Option<Arc<Gate>>) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    thread::spawn(move || {
        let mut buffer = vec![0; BUFFER_BYTES];
        'relay: while let Ok(count @ 1..) = from.read(&mut buffer) {
            let mut rest = &buffer[..count];
            while !rest.is_empty() {
                let count = gate.as_ref().map_or(rest.len(), |gate| gate.pass(rest.len()));
                let (now, later) = rest.split_at(count);
                if to.write_all(now).is_err() {
                    break 'relay;
                }
                rest = later;
            }
        }
        // Either end may be gone already.
        drop(to.shutdown(Shutdown::Both));
        drop(from.shutdown(Shutdown::Both));
    });
}
