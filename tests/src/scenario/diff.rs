//! What differs between an expected and a seen trace, with the lines around it.

/// Equal lines shown around each difference.
const CONTEXT: usize = 3;
/// Differences longer than this are not aligned line by line: the expected part is shown, then the seen one.
const ALIGN_MAX: usize = 4_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Both,
    Expected,
    Seen,
}

/// The differences, `-` expected, `+` seen; empty when there are none. `first_line` is the file's line of `expected[0]`.
#[must_use]
pub(super) fn diff(expected: &[String], seen: &[String], first_line: usize) -> String {
    let script = script(expected, seen);
    let shown = |index: usize| {
        let from = index.saturating_sub(CONTEXT);
        script[from..(index + CONTEXT + 1).min(script.len())].iter().any(|(side, _)| *side != Side::Both)
    };
    let mut text = String::new();
    let mut line = first_line;
    let mut skipped = true;
    for (index, (side, content)) in script.iter().enumerate() {
        if shown(index) {
            if skipped {
                text.push_str(&format!("  at line {line}:\n"));
            }
            let mark = match side {
                Side::Both => ' ',
                Side::Expected => '-',
                Side::Seen => '+',
            };
            text.push_str(&format!("  {mark} {content}\n"));
        }
        skipped = !shown(index);
        if *side != Side::Seen {
            line += 1;
        }
    }
    text
}

/// The longest common subsequence, after the equal ends are set aside.
fn script<'t>(expected: &'t [String], seen: &'t [String]) -> Vec<(Side, &'t str)> {
    let same =
        |pairs: &mut dyn Iterator<Item = (&String, &String)>| pairs.take_while(|(a, b)| a == b).count();
    let start = same(&mut expected.iter().zip(seen));
    let (old, new) = (&expected[start..], &seen[start..]);
    let end = same(&mut old.iter().rev().zip(new.iter().rev()));
    let (old, tail) = old.split_at(old.len() - end);
    let new = &new[..new.len() - end];
    let both = |line: &'t String| (Side::Both, line.as_str());
    let mut script: Vec<(Side, &str)> = expected[..start].iter().map(both).collect();
    let (mut at_old, mut at_new) = (0, 0);
    if (old.len() + 1) * (new.len() + 1) <= ALIGN_MAX {
        let common = common_lengths(old, new);
        while at_old < old.len() && at_new < new.len() {
            if old[at_old] == new[at_new] {
                script.push(both(&old[at_old]));
                at_old += 1;
                at_new += 1;
            } else if common[at_old + 1][at_new] >= common[at_old][at_new + 1] {
                script.push((Side::Expected, &old[at_old]));
                at_old += 1;
            } else {
                script.push((Side::Seen, &new[at_new]));
                at_new += 1;
            }
        }
    }
    script.extend(old[at_old..].iter().map(|line| (Side::Expected, line.as_str())));
    script.extend(new[at_new..].iter().map(|line| (Side::Seen, line.as_str())));
    script.extend(tail.iter().map(both));
    script
}

/// For each pair of suffixes how many lines they have in common, in order.
fn common_lengths(old: &[String], new: &[String]) -> Vec<Vec<u32>> {
    let mut common = vec![vec![0; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = if old[i] == new[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn only_differences_and_their_surroundings_are_shown() {
        let same = lines("a b c d e f g h i");
        assert_eq!(diff(&same, &same, 1), "");
        let text = diff(&same, &lines("a b c d X f g h i j"), 10);
        assert_eq!(
            text,
            "  at line 11:\n    b\n    c\n    d\n  - e\n  + X\n    f\n    g\n    h\n    i\n  + j\n"
        );
        let text = diff(&same, &lines("X a b c d e f g h i j"), 10);
        assert_eq!(
            text,
            "  at line 10:\n  + X\n    a\n    b\n    c\n  at line 16:\n    g\n    h\n    i\n  + j\n"
        );
    }
}
