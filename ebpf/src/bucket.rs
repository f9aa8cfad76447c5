//! The guard's rate: a bucket of tokens that fills with time and holds one second's worth. Called per packet of an
//! unknown source.
use dwcp_abi::bpf::Bucket;

/// Takes a token out of a bucket that fills at `per_s`; says whether there was one. A bucket of zeroes is full.
#[inline(always)]
pub fn take(bucket: &mut Bucket, now_ns: u64, per_s: u64) -> bool {
    if per_s == 0 {
        return false;
    }
    let full = per_s * THOUSAND;
    if bucket.filled_ns == 0 {
        bucket.filled_ns = now_ns;
        bucket.thousandths = full;
    }
    let elapsed_ns = now_ns.saturating_sub(bucket.filled_ns);
    if elapsed_ns >= NS_PER_S {
        bucket.filled_ns = now_ns;
        bucket.thousandths = full;
    } else if elapsed_ns > 0 {
        let filled = elapsed_ns * per_s / NS_PER_THOUSANDTH;
        // What is too short for a thousandth stays in the clock, or a flood would never let the bucket fill.
        if filled > 0 {
            bucket.filled_ns += filled * NS_PER_THOUSANDTH / per_s;
            bucket.thousandths += filled;
        }
    }
    // More than fits is also what an earlier, higher rate has left.
    if bucket.thousandths > full {
        bucket.thousandths = full;
    }
    if bucket.thousandths < THOUSAND {
        return false;
    }
    bucket.thousandths -= THOUSAND;
    true
}

const THOUSAND: u64 = 1000;
const NS_PER_S: u64 = 1_000_000_000;
const NS_PER_THOUSANDTH: u64 = NS_PER_S / THOUSAND;

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets that pass in `seconds` when one comes every `gap_ns`.
    fn passed(per_s: u64, gap_ns: u64, seconds: u64) -> u64 {
        let mut bucket = Bucket::default();
        let packets = seconds * NS_PER_S / gap_ns;
        (1..=packets).filter(|number| take(&mut bucket, number * gap_ns, per_s)).count() as u64
    }

    #[test]
    fn a_flood_gets_the_rate_and_one_second_at_once() {
        for gap_ns in [100, 1_000, 9_999] {
            let passed = passed(200, gap_ns, 3);
            assert!((795..=801).contains(&passed), "{passed} of 200 + 3 × 200 at {gap_ns} ns");
        }
    }

    #[test]
    fn what_stays_below_the_rate_always_passes() {
        assert_eq!(passed(200, 6_000_000, 6), 1000);
    }

    #[test]
    fn a_rate_that_was_lowered_counts_at_once() {
        let mut bucket = Bucket::default();
        assert!(take(&mut bucket, 1, 1_000_000));
        assert_eq!((0..10).filter(|_| take(&mut bucket, 1, 3)).count(), 3);
    }

    #[test]
    fn a_rate_of_zero_lets_nothing_pass() {
        assert_eq!(passed(0, 1_000_000, 2), 0);
    }

    #[test]
    fn a_clock_that_goes_back_takes_nothing_away() {
        let mut bucket = Bucket { filled_ns: 10 * NS_PER_S, thousandths: 1000 };
        assert!(take(&mut bucket, 9 * NS_PER_S, 5));
        assert_eq!(bucket, Bucket { filled_ns: 10 * NS_PER_S, thousandths: 0 });
    }
}
