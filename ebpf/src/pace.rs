//! Which rate a connection gets: the policy's, but never above what its owner had set. Called at each measured round
//! trip by the socket program.

/// What to write into the socket (SO_MAX_PACING_RATE, four bytes: all that a program may write).
///
/// `own` is what its owner had set, in the same form; `policy` the class's ceiling in bytes per second, 0 = none.
#[inline(always)]
#[must_use]
pub const fn rate(own: u32, policy: u64) -> u32 {
    if policy == 0 || policy >= own as u64 { own } else { policy as u32 }
}

/// No ceiling (`~0U` in `sk_setsockopt`, net/core/sock.c). What is faster than 34 Gbit/s is not held back either.
pub const UNPACED: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_ceiling_counts() {
        assert_eq!(rate(UNPACED, 1_000_000), 1_000_000);
        assert_eq!(rate(500_000, 1_000_000), 500_000);
        assert_eq!(rate(UNPACED, u64::MAX), UNPACED);
    }

    #[test]
    fn without_a_policy_the_owner_gets_back_what_it_had() {
        assert_eq!(rate(500_000, 0), 500_000);
        assert_eq!(rate(UNPACED, 0), UNPACED);
    }
}
