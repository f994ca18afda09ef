//! The known name that an unknown one was probably meant to be.

/// The one name among `known` that differs from `name` by the fewest edits, if those are few for its length.
pub(super) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let mut by_distance: Vec<_> = known.iter().map(|known| (distance(name, known), *known)).collect();
    by_distance.sort_unstable();
    let (least, candidate) = *by_distance.first()?;
    let few = (name.len().max(candidate.len()) / 3).max(1);
    let alone = by_distance.get(1).is_none_or(|(next, _)| *next > least);
    (least <= few && alone).then_some(candidate)
}

/// Insertions, deletions and replacements from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_a_guess_is_not() {
        let known = ["listen", "workers", "header_timeout"];
        assert_eq!(nearest("listn", &known), Some("listen"));
        assert_eq!(nearest("header-timeout", &known), Some("header_timeout"));
        assert_eq!(nearest("threads", &known), None);
        assert_eq!(nearest("404", &["400", "403"]), None);
        assert_eq!(nearest("x", &[]), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
