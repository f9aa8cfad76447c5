//! The table of cores, for `dwcp status` and `dwcp top`: what both show, and what each shows beside it.
use dwcp_api::CoreFigures;

use crate::table::{Side, Table};
use crate::units;

/// A column: its head, the side it keeps to, and what it says of a core.
pub(crate) type Column = (&'static str, Side, fn(&CoreFigures) -> String);

/// One row for each core; the columns of `more` come last.
pub(crate) fn table(cores: &[CoreFigures], more: &[Column]) -> String {
    let columns: Vec<&Column> = COMMON.iter().chain(more).collect();
    let heads: Vec<(&str, Side)> = columns.iter().map(|(head, side, _)| (*head, *side)).collect();
    let mut table = Table::new(&heads);
    for core in cores {
        table.row(columns.iter().map(|(.., shown)| shown(core)));
    }
    table.render()
}

const COMMON: [Column; 5] = [
    ("WORKER", Side::Right, |core| core.worker.to_string()),
    ("CPU", Side::Right, |core| core.cpu.map_or_else(|| "-".to_owned(), |cpu| cpu.to_string())),
    ("LANES", Side::Right, |core| core.lanes.to_string()),
    ("SENDING", Side::Right, |core| units::rate(core.send_rate_bytes_per_s)),
    ("RECEIVING", Side::Right, |core| units::rate(core.receive_rate_bytes_per_s)),
];
