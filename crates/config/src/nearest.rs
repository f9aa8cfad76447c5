//! "Did you mean": the nearest of a few known words. Called for unknown keys here and for unknown peers by control.
//! It is meant for short lists; it keeps no index.

/// The candidate that is closest to `word`, or none where nothing is close enough to be meant.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).clamp(1, DISTANCE_MAX);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|&(distance, _)| distance <= limit)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace, swap neighbours) between two words, as optimal string alignment. Words are cut at
/// [`WORD_MAX`] characters: longer ones are no typing errors.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(WORD_MAX).flat_map(char::to_lowercase).collect();
    let b: Vec<char> = b.chars().take(WORD_MAX).flat_map(char::to_lowercase).collect();
    let width = b.len() + 1;
    let mut before = vec![0; width];
    let mut above: Vec<usize> = (0..width).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut row = vec![i + 1; width];
        for (j, &y) in b.iter().enumerate() {
            let mut cost = (row[j] + 1).min(above[j + 1] + 1).min(above[j] + usize::from(x != y));
            if i > 0 && j > 0 && x == b[j - 1] && a[i - 1] == y {
                cost = cost.min(before[j - 1] + 1);
            }
            row[j + 1] = cost;
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

const WORD_MAX: usize = 96;
const DISTANCE_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits_and_swaps() {
        assert_eq!(distance("streams", "streams"), 0);
        assert_eq!(distance("streams", "stream"), 1);
        assert_eq!(distance("mni_streams", "min_streams"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn suggests_only_what_is_close() {
        let peers = ["paris", "berlin", "tokyo"];
        assert_eq!(nearest("pariss", peers), Some("paris"));
        assert_eq!(nearest("berln", peers), Some("berlin"));
        assert_eq!(nearest("newyork", peers), None);
    }
}
