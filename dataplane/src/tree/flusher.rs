//! The thread that flushes partial files while they are written, so that a loss of power costs about a second of what
//! has arrived. One for the process, away from the workers, because a flush may take as long as the disk likes.
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use super::partial::Partial;

/// Flushes what it was given for as long as somebody else holds it.
#[derive(Debug, Default)]
pub struct Flusher {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    partials: Vec<Weak<Partial>>,
    runs: bool,
    over: bool,
}

/// Between two flushes of all. The next one starts so long after the last has ended, so that a slow disk is not kept
/// busy by this alone.
const INTERVAL: Duration = Duration::from_secs(1);

impl Flusher {
    /// Takes a partial file in.
    ///
    /// # Errors
    /// When the system gives no thread: what arrives then is durable when the kernel likes.
    pub fn add(&self, partial: &Arc<Partial>) -> std::io::Result<()> {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.partials.push(Arc::downgrade(partial));
        if !state.runs {
            let shared = Arc::clone(&self.shared);
            thread::Builder::new().name("flush".to_owned()).spawn(move || run(&shared))?;
            state.runs = true;
        }
        self.shared.changed.notify_all();
        Ok(())
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).over = true;
        self.shared.changed.notify_all();
    }
}

fn run(shared: &Shared) {
    let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let idle = |state: &mut State| state.partials.is_empty() && !state.over;
        state = shared.changed.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner);
        let waited = shared.changed.wait_timeout_while(state, INTERVAL, |state| !state.over);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        if state.over {
            return;
        }
        state.partials.retain(|partial| partial.strong_count() > 0);
        let partials: Vec<Arc<Partial>> = state.partials.iter().filter_map(Weak::upgrade).collect();
        drop(state);
        partials.iter().for_each(|partial| partial.flush());
        // The last one to hold a file closes it: not under the lock.
        drop(partials);
        state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    }
}
