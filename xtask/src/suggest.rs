//! The nearest real name to a mistyped one. Used wherever a person types a name.

/// `"; did you mean 'x'?"`, or the list of all names where none is near.
pub(crate) fn hint<'a>(typed: &str, names: impl Iterator<Item = &'a str> + Clone) -> String {
    let nearest = names.clone().map(|name| (distance(typed, name), name)).min();
    match nearest {
        Some((distance, name)) if distance <= 1 + name.len() / 3 => format!("; did you mean '{name}'?"),
        Some(_) | None => format!("; there are: {}", names.collect::<Vec<_>>().join(", ")),
    }
}

/// Insertions, deletions and replacements from one to the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (line, left) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, right) in to.chars().enumerate() {
            let replaced = diagonal + usize::from(left != right);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[row.len() - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_named_and_far_ones_listed() {
        let names = ["setup", "build-ebpf", "test"];
        assert_eq!(hint("stup", names.into_iter()), "; did you mean 'setup'?");
        assert_eq!(hint("build-epbf", names.into_iter()), "; did you mean 'build-ebpf'?");
        assert_eq!(hint("xyzzyxyzzy", names.into_iter()), "; there are: setup, build-ebpf, test");
    }

    #[test]
    fn distances() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
