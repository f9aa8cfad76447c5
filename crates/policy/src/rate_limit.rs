//! How many requests a client may make. Called by control's HTTP for each request of another host; time is an argument.
//!
//! A bucket for each client holds as many tokens as it may make requests in a minute, and fills at that rate. A client
//! that stays away is forgotten once its bucket is full again, so that memory follows those who are there.
use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::string::String;
use core::time::Duration;

/// All buckets.
#[derive(Debug, Clone)]
pub struct RateLimiter {
    per_minute: u32,
    clients_max: usize,
    buckets: BTreeMap<String, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// In thousandths of a token.
    level_milli: u64,
    at: Duration,
}

/// What a client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the request is served.
    pub is_served: bool,
    /// How many more would be at this moment.
    pub left: u32,
    /// Until one more is served; zero where one is.
    pub retry_after: Duration,
}

impl RateLimiter {
    /// So many requests a minute for each client, 0 = as many as they like, and at most so many clients at once.
    #[must_use]
    pub fn new(per_minute: u32, clients_max: usize) -> Self {
        Self { per_minute, clients_max, buckets: BTreeMap::new() }
    }

    /// Another rate from now on.
    pub fn set_rate(&mut self, per_minute: u32) {
        if per_minute != self.per_minute {
            self.per_minute = per_minute;
            self.buckets.clear();
        }
    }

    /// A client makes a request.
    pub fn handle_request(&mut self, client: &str, now: Duration) -> Verdict {
        if self.per_minute == 0 {
            return Verdict { is_served: true, left: u32::MAX, retry_after: Duration::ZERO };
        }
        let (per_minute, full_milli) = (u64::from(self.per_minute), u64::from(self.per_minute) * MILLI);
        if !self.buckets.contains_key(client) && self.buckets.len() >= self.clients_max {
            self.forget_idle(now);
        }
        if !self.buckets.contains_key(client) && self.buckets.len() >= self.clients_max {
            // More clients than there is room for are all served as one that has used up what it may.
            return Verdict { is_served: false, left: 0, retry_after: MINUTE };
        }
        let fresh = Bucket { level_milli: full_milli, at: now };
        let bucket = self.buckets.entry(client.to_owned()).or_insert(fresh);
        bucket.fill(per_minute, now);
        let is_served = bucket.level_milli >= MILLI;
        if is_served {
            bucket.level_milli -= MILLI;
        }
        let missing_milli = MILLI.saturating_sub(bucket.level_milli);
        let retry_ms = if is_served { 0 } else { (missing_milli * 60).div_ceil(per_minute) };
        let left = u32::try_from(bucket.level_milli / MILLI).unwrap_or(u32::MAX);
        Verdict { is_served, left, retry_after: Duration::from_millis(retry_ms) }
    }

    /// Clients that are remembered.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.buckets.len()
    }

    fn forget_idle(&mut self, now: Duration) {
        self.buckets.retain(|_, bucket| now.saturating_sub(bucket.at) < MINUTE);
    }
}

impl Bucket {
    fn fill(&mut self, per_minute: u64, now: Duration) {
        let elapsed_ms =
            u64::try_from(now.saturating_sub(self.at).min(MINUTE).as_millis()).unwrap_or(u64::MAX);
        // Thousandths per millisecond: per_minute / 60. What is too short for one of them is not lost.
        let gained_milli = elapsed_ms * per_minute / 60;
        if gained_milli > 0 {
            self.level_milli = (self.level_milli + gained_milli).min(per_minute * MILLI);
            self.at = now;
        }
    }
}

const MILLI: u64 = 1000;
const MINUTE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    #[test]
    fn a_minute_holds_so_many_and_says_when_again() {
        let mut limiter = RateLimiter::new(60, 10);
        let at = Duration::from_secs;
        let served = (0..100).filter(|_| limiter.handle_request("a", at(5)).is_served).count();
        assert_eq!(served, 60);
        let verdict = limiter.handle_request("a", at(5));
        assert_eq!((verdict.is_served, verdict.left, verdict.retry_after), (false, 0, at(1)));
        assert!(limiter.handle_request("b", at(5)).is_served);
        assert!(limiter.handle_request("a", at(6)).is_served);
        assert!(!limiter.handle_request("a", at(6)).is_served);
        limiter.set_rate(0);
        assert!(limiter.handle_request("a", at(6)).is_served);
    }

    #[test]
    fn a_flood_of_clients_costs_no_memory_and_passes() {
        let mut limiter = RateLimiter::new(60, 100);
        for client in 0..1000 {
            limiter.handle_request(&format!("{client}"), Duration::ZERO);
        }
        assert_eq!(limiter.clients(), 100);
        assert!(!limiter.handle_request("late", Duration::from_secs(1)).is_served);
        assert!(limiter.handle_request("late", Duration::from_secs(61)).is_served);
        assert_eq!(limiter.clients(), 1);
    }

    proptest! {
        /// Against the definition: within any minute no client is served more than twice its minute's worth (a full
        /// bucket and what flows in), and one that asks more slowly than its rate is always served.
        #[test]
        fn serves_what_it_should(per_minute in 1_u32..2000, steps in proptest::collection::vec(0_u64..500, 1..400)) {
            let mut limiter = RateLimiter::new(per_minute, 10);
            let (mut now_ms, mut served_ms) = (0_u64, Vec::new());
            for step in &steps {
                now_ms += step;
                if limiter.handle_request("a", Duration::from_millis(now_ms)).is_served {
                    served_ms.push(now_ms);
                }
            }
            for (index, begin) in served_ms.iter().enumerate() {
                let within = served_ms[index..].iter().take_while(|ms| **ms < begin + 60_000).count();
                prop_assert!(within <= 2 * per_minute as usize);
            }
            let pause_ms = 60_000_u64.div_ceil(u64::from(per_minute));
            let mut steady = RateLimiter::new(per_minute, 10);
            for turn in 0..200 {
                prop_assert!(steady.handle_request("a", Duration::from_millis(turn * pause_ms)).is_served);
            }
        }
    }
}
