//! Rounds of variants, and what is printed of them: a table, the ratios against one variant, a line of JSON.
use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::measure::{Cost, median};

/// Everything that was measured. The first variant is what the others are compared with.
#[derive(Debug)]
pub struct Report {
    name: &'static str,
    rows: Vec<(String, Vec<Cost>)>,
}

/// One way to do the work; `None` where its tool is not installed.
pub type Variant<'a> = (String, Box<dyn FnMut() -> Result<Option<Cost>> + 'a>);

impl Report {
    /// Runs all variants in turn, so many rounds. One that cannot run is skipped with a line.
    ///
    /// # Errors
    /// A variant fails.
    pub fn run(name: &'static str, rounds: u64, variants: Vec<Variant<'_>>) -> Result<Self> {
        let mut rows = Vec::new();
        let mut measured = Vec::new();
        for (label, mut variant) in variants {
            // Warms caches up and says whether the tool is there.
            if variant()?.is_none() {
                println!("bench {name}: skipped: {label}: its program is not installed");
                continue;
            }
            rows.push((label, Vec::new()));
            measured.push(variant);
        }
        for _ in 0..rounds {
            for ((_, costs), variant) in rows.iter_mut().zip(&mut measured) {
                costs.extend(variant()?);
            }
        }
        Ok(Self { name, rows })
    }

    /// Median over the rounds of a figure's ratio to the first variant's in the same round.
    fn ratio(&self, costs: &[Cost], figure: impl Fn(&Cost) -> f64) -> f64 {
        let base = &self.rows[0].1;
        median(costs.iter().zip(base).map(|(cost, base)| figure(cost) / figure(base)).collect())
    }

    /// Median over the rounds of a variant's wall time to the first one's; NaN for a variant that was skipped.
    #[must_use]
    pub fn wall_ratio(&self, label: &str) -> f64 {
        let row = self.rows.iter().find(|(known, _)| known == label);
        row.map_or(f64::NAN, |(_, costs)| self.ratio(costs, |cost| cost.wall_s))
    }

    /// Median over the rounds of a variant's rate as a share of the best of those whose label starts with `peers`; NaN
    /// where there is none.
    #[must_use]
    pub fn share_of_best(&self, label: &str, peers: &str) -> f64 {
        let Some((_, costs)) = self.rows.iter().find(|(known, _)| known == label) else { return f64::NAN };
        let best = |round: usize| {
            let rows = self.rows.iter().filter(|(known, _)| known.starts_with(peers));
            rows.map(|(_, costs)| costs[round].gbit_per_s()).fold(f64::NAN, f64::max)
        };
        median(costs.iter().enumerate().map(|(round, cost)| cost.gbit_per_s() / best(round)).collect())
    }

    /// Prints the table and the JSON line.
    pub fn print(&self) {
        let Some((base, _)) = self.rows.first() else { return };
        println!(
            "{:<34} {:>8} {:>8} {:>8} {:>9} {:>9}",
            "", "wall s", "Gbit/s", "CPU s", "CPU ratio", "wall ratio"
        );
        let mut json = Map::new();
        for (label, costs) in &self.rows {
            let middle = |figure: fn(&Cost) -> f64| median(costs.iter().map(figure).collect());
            let (wall, rate, cpu) =
                (middle(|cost| cost.wall_s), middle(Cost::gbit_per_s), middle(|cost| cost.cpu_s));
            let (cpu_ratio, wall_ratio) =
                (self.ratio(costs, |cost| cost.cpu_s), self.ratio(costs, |cost| cost.wall_s));
            println!("{label:<34} {wall:>8.3} {rate:>8.2} {cpu:>8.3} {cpu_ratio:>9.2} {wall_ratio:>9.2}");
            json.insert(
                label.clone(),
                json!({
                    "wall_s": rounded(wall), "gbit_per_s": rounded(rate), "cpu_s": rounded(cpu),
                    "cpu_ratio": rounded(cpu_ratio), "wall_ratio": rounded(wall_ratio),
                }),
            );
        }
        let rounds = self.rows[0].1.len();
        println!("medians of {rounds} rounds, ratios within a round, against {base}; load {}", load());
        println!("{}", json!({ "bench": self.name, "rounds": rounds, "rows": Value::Object(json) }));
    }
}

/// Load averages of the machine.
#[must_use]
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

fn rounded(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}
