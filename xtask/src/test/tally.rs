//! Counts test results from the output of `cargo test`. A test that this machine cannot run prints a line
//! `skipped: reason` and returns; libtest calls that passed, this file calls it skipped.

/// How many of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) skipped: u64,
}

impl Tally {
    pub(super) fn passed() -> Self {
        Self { passed: 1, ..Self::default() }
    }

    pub(super) fn failed() -> Self {
        Self { failed: 1, ..Self::default() }
    }

    pub(super) fn skipped() -> Self {
        Self { skipped: 1, ..Self::default() }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Whether a person wants to see a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    Yes,
    No,
}

/// Reads the output line by line.
#[derive(Debug, Default)]
pub(super) struct Reader {
    tally: Tally,
    /// Inside the captured output of tests that passed.
    in_successes: bool,
    /// Headings of tests that have said `skipped:` in this binary: one test is one skip, however much it says.
    test: String,
    skipped_tests: Vec<String>,
}

impl Reader {
    /// Takes the next line.
    pub(super) fn read(&mut self, line: &str) -> Shown {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.in_successes = false;
            self.close_binary(result);
            // Documentation and binaries without tests.
            return if result.starts_with("ok. 0 passed; 0 failed; 0 ignored") {
                Shown::No
            } else {
                Shown::Yes
            };
        }
        match line {
            "successes:" => self.in_successes = true,
            "failures:" => self.in_successes = false,
            _ => {}
        }
        if !self.in_successes {
            return if is_noise(line) { Shown::No } else { Shown::Yes };
        }
        if let Some(heading) = line.strip_prefix("---- ") {
            self.test = heading.to_owned();
        }
        if !line.starts_with("skipped: ") || self.skipped_tests.contains(&self.test) {
            return Shown::No;
        }
        self.skipped_tests.push(self.test.clone());
        Shown::Yes
    }

    /// The counts so far.
    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    fn close_binary(&mut self, result: &str) {
        let count = |name: &str| {
            let mut words = result.split([' ', ';']).filter(|word| !word.is_empty());
            let mut last = None;
            words.find_map(|word| {
                let number = if word == name { last } else { None };
                last = word.parse::<u64>().ok();
                number
            })
        };
        let skipped = self.skipped_tests.len() as u64;
        self.skipped_tests.clear();
        self.tally.add(Tally {
            passed: count("passed").unwrap_or(0).saturating_sub(skipped),
            failed: count("failed").unwrap_or(0),
            skipped: skipped + count("ignored").unwrap_or(0),
        });
    }
}

/// Thousands of tests pass: their names say nothing.
fn is_noise(line: &str) -> bool {
    line.is_empty()
        || (line.starts_with("test ") && line.ends_with(" ... ok"))
        || line.starts_with("running ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Tally, Vec<&str>) {
        let mut reader = Reader::default();
        let shown = text.lines().filter(|line| reader.read(line) == Shown::Yes).collect();
        (reader.tally(), shown)
    }

    #[test]
    fn results_of_several_binaries_add_up() {
        let (tally, _) = read(concat!(
            "running 3 tests\ntest a ... ok\ntest b ... ok\ntest c ... FAILED\n\nfailures:\n    c\n\n",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
            "test result: ok. 5 passed; 0 failed; 2 ignored; 0 measured; 9 filtered out; finished in 0.00s\n",
        ));
        assert_eq!(tally, Tally { passed: 7, failed: 1, skipped: 2 });
    }

    #[test]
    fn a_test_that_says_skipped_is_skipped_once() {
        let (tally, shown) = read(concat!(
            "successes:\n\n---- veth stdout ----\nskipped: needs root\nskipped: and more\nchatter\n\n",
            "---- other stdout ----\nnot skipped: this one\n\nsuccesses:\n    veth\n    other\n\n",
            "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        ));
        assert_eq!(tally, Tally { passed: 1, failed: 0, skipped: 1 });
        assert!(shown.contains(&"skipped: needs root"));
        assert!(!shown.contains(&"chatter"));
    }

    #[test]
    fn output_of_failures_is_shown() {
        let (_, shown) = read("failures:\n\n---- c stdout ----\nthread 'c' panicked at x\n");
        assert!(shown.contains(&"thread 'c' panicked at x"));
    }

    #[test]
    fn the_summary_line_has_its_form() {
        assert_eq!(Tally { passed: 1, failed: 2, skipped: 3 }.to_string(), "1 passed, 2 failed, 3 skipped");
    }
}
