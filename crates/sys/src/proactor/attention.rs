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
    use loom::sync::atomic::AtomicU32;
    use loom::sync::{Arc, Notify};
    use loom::thread;

    use super::*;

    struct World {
        attention: Attention,
        messages: AtomicU32,
        event: Notify,
    }

    fn publish_and_notify(world: &World) {
        world.messages.fetch_add(1, Ordering::Relaxed);
        if world.attention.notify() {
            world.event.notify();
        }
    }

    /// Two wakers publish a message each. The proactor sees both, and never sleeps on an eventfd that nobody writes.
    #[test]
    fn no_message_is_slept_through() {
        let mut model = loom::model::Builder::new();
        // Three switches at the worst moments show every known bug of this kind, and take seconds instead of minutes.
        model.preemption_bound = Some(3);
        model.check(|| {
            let (attention, messages) = (Attention::new(), AtomicU32::new(0));
            let world = Arc::new(World { attention, messages, event: Notify::new() });
            let wakers =
                [world.clone(), world.clone()].map(|world| thread::spawn(move || publish_and_notify(&world)));
            while world.messages.load(Ordering::Relaxed) < 2 {
                // Every round sleeps or consumes a notification, so that there are few of them. loom reports a
                // deadlock when nobody ends a sleep.
                if world.attention.fall_asleep() {
                    world.event.wait();
                    world.attention.wake_up();
                }
            }
            for waker in wakers {
                waker.join().expect("a waker");
            }
        });
    }
}
