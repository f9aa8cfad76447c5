//! Writes the text format. A family is begun by its declared name and then given samples; an undeclared name is a
//! mistake of ours.
use std::fmt::Write;

use super::table::{FAMILIES, Family};

/// A page that grows.
pub(super) struct Page {
    out: String,
    family: &'static Family,
}

impl Page {
    pub(super) fn new() -> Self {
        Self { out: String::with_capacity(PAGE_BYTES), family: &FAMILIES[0] }
    }

    /// Begins a family.
    pub(super) fn family(&mut self, name: &str) -> &mut Self {
        let found = FAMILIES.iter().find(|family| family.name == name);
        debug_assert!(found.is_some(), "{name} is not declared");
        if let Some(family) = found {
            self.family = family;
            self.push(format_args!("# HELP {name} {}\n# TYPE {name} {}\n", family.help, family.kind.name()));
        }
        self
    }

    /// A family with one sample.
    pub(super) fn one(&mut self, name: &str, value: impl Number) {
        self.family(name).sample(&[], value);
    }

    /// A sample of the family.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Number) -> &mut Self {
        self.suffixed("", labels, value)
    }

    /// A sample of a histogram's `_bucket`, `_sum`, `_count`.
    pub(super) fn suffixed(
        &mut self,
        suffix: &str,
        labels: &[(&str, &str)],
        value: impl Number,
    ) -> &mut Self {
        self.push(format_args!("{}{suffix}", self.family.name));
        for (index, (label, text)) in labels.iter().enumerate() {
            let open = if index == 0 { '{' } else { ',' };
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            self.push(format_args!("{open}{label}=\"{text}\""));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        self.push(format_args!("{close} "));
        value.write(&mut self.out);
        self.out.push('\n');
        self
    }

    /// A whole histogram: upper bounds in seconds, observations per bucket, all observations, their sum.
    pub(super) fn histogram(&mut self, name: &str, bounds: &[f64], buckets: &[u64], count: u64, sum: f64) {
        self.family(name);
        let mut cumulative = 0_u64;
        for (bound, bucket) in bounds.iter().zip(buckets) {
            cumulative = cumulative.saturating_add(*bucket);
            self.suffixed("_bucket", &[("le", &bound.to_string())], cumulative);
        }
        // Pages of the other process may disagree with themselves; a histogram must not shrink.
        let count = count.max(cumulative);
        self.suffixed("_bucket", &[("le", "+Inf")], count);
        self.suffixed("_sum", &[], sum).suffixed("_count", &[], count);
    }

    pub(super) fn finish(self) -> String {
        self.out
    }

    fn push(&mut self, arguments: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.out.write_fmt(arguments);
    }
}

/// A value of a sample.
pub(super) trait Number {
    fn write(&self, out: &mut String);
}

impl Number for u64 {
    fn write(&self, out: &mut String) {
        // Writing to a String cannot fail.
        let _ = write!(out, "{self}");
    }
}

impl Number for bool {
    fn write(&self, out: &mut String) {
        out.push(if *self { '1' } else { '0' });
    }
}

impl Number for f64 {
    fn write(&self, out: &mut String) {
        if self.is_nan() {
            return out.push_str("NaN");
        }
        // Writing to a String cannot fail.
        let _ = write!(out, "{self}");
    }
}

impl Number for Option<f64> {
    fn write(&self, out: &mut String) {
        self.unwrap_or(f64::NAN).write(out);
    }
}

const PAGE_BYTES: usize = 32 * 1024;
