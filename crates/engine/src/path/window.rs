//! The largest of what was measured lately. Used by the path control.
use crate::io::Time;

/// A windowed maximum in three figures, as in Linux's `lib/win_minmax.c` (after Kathleen Nichols' algorithm): the best,
/// and the best of the time after it.
#[derive(Debug, Default)]
pub(super) struct Maximum {
    kept: [(Time, f64); 3],
}

impl Maximum {
    pub(super) fn add(&mut self, now: Time, value: f64, window_ns: Time) {
        let new = (now, value);
        let since = |then: Time| now.saturating_sub(then);
        if value >= self.kept[0].1 || since(self.kept[2].0) > window_ns {
            self.kept = [new; 3];
            return;
        }
        if value >= self.kept[1].1 {
            (self.kept[1], self.kept[2]) = (new, new);
        } else if value >= self.kept[2].1 {
            self.kept[2] = new;
        }
        if since(self.kept[0].0) > window_ns {
            self.kept = [self.kept[1], self.kept[2], new];
            if since(self.kept[0].0) > window_ns {
                self.kept = [self.kept[1], self.kept[2], new];
            }
        } else if self.kept[1].0 == self.kept[0].0 && since(self.kept[1].0) > window_ns / 4 {
            (self.kept[1], self.kept[2]) = (new, new);
        } else if self.kept[2].0 == self.kept[1].0 && since(self.kept[2].0) > window_ns / 2 {
            self.kept[2] = new;
        }
    }

    pub(super) fn value(&self) -> f64 {
        self.kept[0].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_what_is_older_than_the_window() {
        let mut maximum = Maximum::default();
        for (now, value, expected) in
            [(1, 5.0, 5.0), (2, 3.0, 5.0), (6, 4.0, 5.0), (12, 1.0, 4.0), (17, 2.0, 2.0), (18, 9.0, 9.0)]
        {
            maximum.add(now, value, 10);
            assert_eq!(maximum.value(), expected, "at {now}");
        }
    }
}
