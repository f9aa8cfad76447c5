//! What a transfer has changed at its receiver, or would change, in words.
use dwcp_api::{Change, Changes};

use crate::units;

/// All of it in one line.
pub(crate) fn line(changes: &Changes, is_dry_run: bool) -> String {
    let deleted = units::count(changes.deleted, "entry", "entries");
    if !is_dry_run {
        return format!("deleted there: {deleted}");
    }
    let created = units::count(changes.created, "new entry", "new entries");
    format!(
        "dry run, nothing was changed: would send {created} and {} changed, {}; would delete {deleted}",
        changes.replaced,
        units::bytes(changes.bytes),
    )
}

/// A line for each name, the last one saying how many more there are.
pub(crate) fn names(changes: &Changes) -> String {
    let mut text = String::new();
    for named in &changes.names {
        text.push_str(&format!("{:<9}{}\n", word(named.change), named.path));
    }
    let all = changes.created.saturating_add(changes.replaced).saturating_add(changes.deleted);
    let more = all.saturating_sub(changes.names.len() as u64);
    if more > 0 {
        text.push_str(&format!("and {more} more\n"));
    }
    text
}

fn word(change: Change) -> &'static str {
    match change {
        Change::Created => "new",
        Change::Replaced => "changed",
        Change::Deleted => "deleted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dwcp_api::{ChangedName, PathText};

    #[test]
    fn figures_and_names_are_said() {
        let name = |change, path: &str| ChangedName { change, path: PathText::new(path).unwrap() };
        let names =
            vec![name(Change::Created, "a"), name(Change::Replaced, "b\n"), name(Change::Deleted, "c")];
        let changes = Changes { created: 1, replaced: 2, bytes: 2048, deleted: 3, names };
        assert_eq!(
            line(&changes, true),
            "dry run, nothing was changed: would send 1 new entry and 2 changed, 2.0 KiB; would delete 3 entries"
        );
        assert_eq!(line(&changes, false), "deleted there: 3 entries");
        assert_eq!(super::names(&changes), "new      a\nchanged  b\\n\ndeleted  c\nand 3 more\n");
    }
}
