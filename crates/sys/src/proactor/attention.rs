//! The word between a proactor and its wakers: does it sleep, and does somebody want it?
//!
//! `waker` and the proactor's turn use it; it makes no system call.
//!
//! Every access is a read-modify-write of one word, so that there is one order of all of them: a notification either
//! comes before the attempt to sleep, which then fails, or after it, and then sees `SLEEPING` and writes the eventfd.

#[cfg(all(loom, test))]
use loom::sync::atomic::{AtomicU8, Ordering};
#[cfg(not(all(loom, test)))]
use std::sync::atomic::{AtomicU8, Ordering};

#[derive(Debug)]
pub(super) struct Attention(AtomicU8);

impl Attention {
    pub(super) fn new() -> Attention {
        Attention(AtomicU8::new(AWAKE))
    }

    /// Wakers: says whether the eventfd must be written.
    pub(super) fn notify(&self) -> bool {
        // Release pairs with the Acquire of `fall_asleep` and `wake_up`: what was published before is seen after.
        self.0.swap(NOTIFIED, Ordering::AcqRel) == SLEEPING
    }

    /// The proactor: says whether it may sleep. A notification is consumed.
    pub(super) fn fall_asleep(&self) -> bool {
        // Acquire on both outcomes pairs with the Release of `notify`.
        if self.0.compare_exchange(AWAKE, SLEEPING, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            return true;
        }
        self.wake_up();
        false
    }

    /// The proactor, after its sleep: says whether it was notified.
    pub(super) fn wake_up(&self) -> bool {
        // Acquire pairs with the Release of `notify`.
        self.0.swap(AWAKE, Ordering::AcqRel) == NOTIFIED
    }
}

const AWAKE: u8 = 0;
const SLEEPING: u8 = 1;
const NOTIFIED: u8 = 2;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn notification_before_sleep_forbids_it_once() {
        let attention = Attention::new();
        assert!(!attention.notify(), "nobody sleeps: no system call");
        assert!(!attention.fall_asleep());
        assert!(attention.fall_asleep());
        assert!(attention.notify(), "sleeping: the eventfd is needed");
        assert!(!attention.notify(), "once is enough");
        assert!(attention.wake_up());
        assert!(attention.fall_asleep());
        assert!(!attention.wake_up());
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU32;
    use loom::thread;

    use super::*;

    /// Two wakers publish a message each. The proactor sees both, and never sleeps on an eventfd that nobody writes.
    #[test]
    fn no_message_is_slept_through() {
        loom::model(|| {
            let attention = Arc::new(Attention::new());
            let messages = Arc::new(AtomicU32::new(0));
            let event = Arc::new(AtomicU32::new(0));
            let wakers: Vec<_> = (0..2)
                .map(|_| {
                    let (attention, messages, event) = (attention.clone(), messages.clone(), event.clone());
                    thread::spawn(move || {
                        messages.fetch_add(1, Ordering::Relaxed);
                        if attention.notify() {
                            event.fetch_add(1, Ordering::Release);
                        }
                    })
                })
                .collect();
            while messages.load(Ordering::Relaxed) < 2 {
                if !attention.fall_asleep() {
                    continue;
                }
                // The kernel ends the sleep when the eventfd is written; loom reports a deadlock when nobody does.
                while event.load(Ordering::Acquire) == 0 {
                    thread::yield_now();
                }
                event.fetch_sub(1, Ordering::AcqRel);
                attention.wake_up();
            }
            for waker in wakers {
                waker.join().expect("a waker");
            }
        });
    }
}
