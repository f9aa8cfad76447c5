//! The control on a link in virtual time: a bottleneck with a buffer, and lanes that double until they are paced.
use alloc::format;

use super::*;

struct Link {
    capacity: f64,
    rtt_ns: Time,
    buffer_bytes: f64,
    loss: f64,
    queue_bytes: f64,
    /// Lanes that share the rate; acknowledgements of thin ones wait for a second segment, 40 ms at most. 0 = never.
    lanes: f64,
    /// What the kernel still remembers of slow handshakes.
    remembered_ns: f64,
    /// Delay that others make: somebody who fills a buffer.
    others_ns: f64,
    /// What the last sample said of the delay.
    smoothed_ns: f64,
    /// Samples say that, as the kernel's do: smoothed, and a round trip old.
    is_late: bool,
}

impl Link {
    fn acknowledgement_ns(&self, rate: f64) -> f64 {
        if self.lanes == 0.0 { 0.0 } else { (1448.0 * self.lanes / rate * 1e9).min(40e6) }
    }
}

struct Run {
    control: PathControl,
    link: Link,
    /// What the lanes' own congestion control would send at.
    own: f64,
    sent: f64,
    delivered: f64,
    resent: f64,
    queue_most_ns: f64,
    queue_sum_ns: f64,
    spans: f64,
}

impl Run {
    fn new(capacity: f64, rtt_ms: u64, loss: f64) -> Self {
        let rtt_ns = rtt_ms * 1_000_000;
        let buffer_bytes = capacity * rtt_ns as f64 / 1e9;
        let link = Link {
            capacity,
            rtt_ns,
            buffer_bytes,
            loss,
            queue_bytes: 0.0,
            lanes: 0.0,
            remembered_ns: 0.0,
            others_ns: 0.0,
            smoothed_ns: 0.0,
            is_late: false,
        };
        let own = 400_000.0 / (rtt_ns as f64 / 1e9);
        let control = PathControl::default();
        Self {
            control,
            link,
            own,
            sent: 0.0,
            delivered: 0.0,
            resent: 0.0,
            queue_most_ns: 0.0,
            queue_sum_ns: 0.0,
            spans: 0.0,
        }
    }

    fn forget(&mut self) {
        (self.sent, self.delivered, self.resent) = (0.0, 0.0, 0.0);
        (self.queue_most_ns, self.queue_sum_ns, self.spans) = (0.0, 0.0, 0.0);
    }

    /// One span: lanes send, the bottleneck carries, the rest waits or is lost.
    fn turn(&mut self, demand: f64) -> f64 {
        let span_ns = self.control.span_ns();
        let seconds = span_ns as f64 / 1e9;
        let cap = self.control.guidance().rate_bytes_per_s.map_or(f64::MAX, |rate| rate as f64);
        let rate = self.own.min(cap).min(demand);
        let sent = rate * seconds;
        let lost = sent * self.link.loss;
        self.link.queue_bytes += sent - lost;
        let carried = self.link.queue_bytes.min(self.link.capacity * seconds);
        self.link.queue_bytes -= carried;
        let dropped = (self.link.queue_bytes - self.link.buffer_bytes).max(0.0);
        self.link.queue_bytes -= dropped;
        let queue_ns = self.link.queue_bytes / self.link.capacity * 1e9;
        let other_ns = self.link.acknowledgement_ns(rate) + self.link.remembered_ns + self.link.others_ns;
        let before_ns = self.link.smoothed_ns;
        self.link.smoothed_ns += (queue_ns + other_ns - before_ns) * 0.7;
        let seen_ns = if self.link.is_late { before_ns } else { queue_ns + other_ns };
        self.link.remembered_ns *= 0.7;
        self.sent += sent;
        self.delivered += carried;
        self.resent += lost + dropped;
        self.queue_most_ns = self.queue_most_ns.max(queue_ns);
        self.queue_sum_ns += queue_ns;
        self.spans += 1.0;
        let doublings = span_ns as f64 / self.link.rtt_ns as f64;
        self.own = (self.own * (1.0 + doublings)).min(20.0 * self.link.capacity);
        self.control.handle(&PathSample {
            span_ns,
            delivered_bytes: carried as u64,
            resent_bytes: (lost + dropped) as u64,
            rtt_ns: self.link.rtt_ns + seen_ns as Time,
            rtt_min_ns: self.link.rtt_ns,
            demand: if rate < demand { Demand::Enough } else { Demand::Little },
        });
        seconds
    }

    fn run(&mut self, seconds: f64, demand: f64) {
        let mut at = 0.0;
        while at < seconds {
            at += self.turn(demand);
        }
    }

    fn share(&self, seconds: f64) -> f64 {
        self.delivered / seconds / self.link.capacity
    }
}

#[test]
fn fills_the_link_without_a_queue_or_repeats() {
    for (capacity, rtt_ms, loss) in
        [(125e6, 20, 0.0), (125e6, 100, 0.0), (125e6, 100, 0.001), (125e6, 100, 0.01), (12.5e6, 200, 0.02)]
    {
        let mut run = Run::new(capacity, rtt_ms, loss);
        run.run(4.0, f64::MAX);
        run.forget();
        run.run(10.0, f64::MAX);
        let name = format!("{capacity} {rtt_ms} {loss}");
        assert!(run.share(10.0) > 0.97, "{name}: {}", run.share(10.0));
        assert!(run.resent / run.sent < loss + 0.01, "{name}: {}", run.resent / run.sent);
        let queue_limit_ns = (run.link.rtt_ns / 4).max(6_000_000) as f64;
        assert!(run.queue_most_ns < queue_limit_ns, "{name}: {} ns", run.queue_most_ns);
        let mean_ns = run.queue_sum_ns / run.spans;
        assert!(mean_ns < (run.link.rtt_ns / 6).max(4_000_000) as f64, "{name}: {mean_ns} ns");
    }
}

#[test]
fn acknowledgements_that_wait_are_no_queue() {
    for (capacity, lanes) in [(12.5e6, 16.0), (1.25e6, 4.0), (1.25e6, 16.0)] {
        let mut run = Run::new(capacity, 80, 0.0);
        (run.link.lanes, run.link.is_late) = (lanes, true);
        // As after a search that ended too early: all that arrives is a sixth of what could.
        run.own = capacity / 6.0;
        run.run(0.5, f64::MAX);
        run.control.phase = Phase::Steady;
        (run.control.rate, run.control.ceiling) = (capacity / 6.0, capacity / 6.0);
        run.own = 2.0 * capacity;
        run.run(6.0, f64::MAX);
        run.forget();
        run.run(20.0, f64::MAX);
        let name = format!("{capacity} {lanes}");
        assert!(run.share(20.0) > 0.93, "{name}: {}", run.share(20.0));
        assert!(run.queue_most_ns < 45e6, "{name}: {}", run.queue_most_ns);
    }
}

#[test]
fn any_link_is_filled() {
    for capacity in [1.25e6, 12.5e6, 125e6, 1.25e9] {
        for (rtt_ms, loss, lanes, others_ns) in [
            (8, 0.0, 0.0, 0.0),
            (30, 0.0, 16.0, 0.0),
            (100, 0.01, 4.0, 0.0),
            (100, 0.0, 0.0, 40e6),
            (300, 0.02, 16.0, 0.0),
        ] {
            let mut run = Run::new(capacity, rtt_ms, loss);
            (run.link.lanes, run.link.others_ns, run.link.is_late) = (lanes, others_ns, true);
            run.run(15.0, f64::MAX);
            run.forget();
            run.run(20.0, f64::MAX);
            let name = format!("{capacity} {rtt_ms} {loss} {lanes} {others_ns}");
            assert!(run.share(20.0) > 0.93, "{name}: {}", run.share(20.0));
            assert!(run.resent / run.sent < loss + 0.02, "{name}: {}", run.resent / run.sent);
        }
    }
}

#[test]
fn very_slow_links_are_left_to_the_lanes() {
    let mut run = Run::new(125e3, 80, 0.0);
    (run.link.lanes, run.link.is_late) = (4.0, true);
    run.run(30.0, f64::MAX);
    assert_eq!(run.control.guidance().rate_bytes_per_s, Some(RATE_MIN_BYTES_PER_S));
}

#[test]
fn slow_handshakes_end_no_search() {
    let mut run = Run::new(12.5e6, 80, 0.0);
    (run.link.remembered_ns, run.link.is_late) = (60e6, true);
    run.run(1.0, f64::MAX);
    run.forget();
    run.run(3.0, f64::MAX);
    assert!(run.share(3.0) > 0.95, "{}", run.share(3.0));
    assert!(run.resent == 0.0, "{}", run.resent);
}

#[test]
fn follows_a_link_that_changes() {
    let mut run = Run::new(125e6, 50, 0.0);
    run.run(5.0, f64::MAX);
    run.link.capacity = 25e6;
    run.run(6.0, f64::MAX);
    run.forget();
    run.run(5.0, f64::MAX);
    assert!(
        run.share(5.0) > 0.95 && run.queue_most_ns < 30_000_000.0,
        "{} {}",
        run.share(5.0),
        run.queue_most_ns
    );
    run.link.capacity = 125e6;
    run.run(5.0, f64::MAX);
    run.forget();
    run.run(5.0, f64::MAX);
    assert!(run.share(5.0) > 0.95, "{}", run.share(5.0));
}

#[test]
fn a_sender_with_little_to_say_is_not_slowed_down() {
    let mut run = Run::new(125e6, 50, 0.0);
    run.run(5.0, 40e6);
    run.forget();
    run.run(5.0, 40e6);
    assert!(run.delivered / 5.0 > 39e6, "{}", run.delivered / 5.0);
    run.run(8.0, f64::MAX);
    run.forget();
    run.run(5.0, f64::MAX);
    assert!(run.share(5.0) > 0.95, "{}", run.share(5.0));
}

#[test]
fn short_paths_are_left_alone_with_hysteresis() {
    let mut control = PathControl::default();
    let mut sample = PathSample {
        span_ns: 50_000_000,
        delivered_bytes: 50_000_000,
        resent_bytes: 0,
        rtt_ns: 5_000_000,
        rtt_min_ns: 5_000_000,
        demand: Demand::Enough,
    };
    for (rtt_ms, mode) in [
        (5, PathMode::Datacenter),
        (7, PathMode::Internet),
        (5, PathMode::Internet),
        (3, PathMode::Datacenter),
        (5, PathMode::Datacenter),
    ] {
        (sample.rtt_ns, sample.rtt_min_ns) = (rtt_ms * 1_000_000, rtt_ms * 1_000_000);
        control.handle(&sample);
        assert_eq!(control.guidance().mode, mode, "{rtt_ms} ms");
    }
    assert_eq!(control.transitions(), 2);
    assert_eq!(control.guidance().rate_bytes_per_s, None);
}

#[test]
fn absurd_samples_change_nothing() {
    let mut control = PathControl::default();
    let nothing = PathSample {
        span_ns: 0,
        delivered_bytes: u64::MAX,
        resent_bytes: 0,
        rtt_ns: 1,
        rtt_min_ns: 1,
        demand: Demand::Enough,
    };
    control.handle(&nothing);
    control.handle(&PathSample { span_ns: 1, rtt_ns: 0, ..nothing });
    assert_eq!(control.reason(), Reason::Unknown);
}
