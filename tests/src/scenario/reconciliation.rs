//! The talk of a reconciliation in the words of a trace: how much is compared, listed, wanted, not which hashes.

use shardgate_peering_core::{Compare, CompareContent, Compared, ComparedContent};

/// A number of things; nothing for 0.
fn some(number: usize, one: &str, many: &str) -> Option<String> {
    let thing = if number == 1 { one } else { many };
    (number > 0).then(|| format!("{number} {thing}"))
}

fn sentence(start: String, parts: impl IntoIterator<Item = Option<String>>) -> String {
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        format!("{start} nothing differs")
    } else {
        format!("{start} {}", parts.join(", "))
    }
}

/// A question.
#[must_use]
pub(super) fn compare(compare: &Compare) -> String {
    let (mut by_parts, mut listed, mut wanted) = (0, 0, 0);
    let mut whole = 0;
    for part in &compare.parts {
        match &part.content {
            CompareContent::Parts(_) => by_parts += 1,
            CompareContent::All(digests) => {
                whole += 1;
                listed += digests.len();
            }
            CompareContent::Want(digests) => wanted += digests.len(),
        }
    }
    let learning = if compare.learning { " (I know nothing yet)" } else { "" };
    let entries = some(listed, "entry", "entries").unwrap_or_else(|| "nothing in it".to_owned());
    let listed = some(whole, "range", "ranges").map(|ranges| format!("{ranges} listed whole ({entries})"));
    sentence(
        format!("compare {}.{}{learning}:", compare.id, compare.number),
        [
            some(by_parts, "range by the digests of its parts", "ranges by the digests of their parts"),
            listed,
            some(wanted, "entry wanted", "entries wanted"),
        ],
    )
}

/// An answer.
#[must_use]
pub(super) fn compared(compared: &Compared) -> String {
    let (mut differ, mut few, mut wanted) = (0, 0, 0);
    for part in &compared.parts {
        match &part.content {
            ComparedContent::Parts { differ: bits, few: listed } => {
                differ += usize::try_from(bits.count_ones()).unwrap_or(0);
                few += listed.iter().map(|(_, digests)| digests.len()).sum::<usize>();
            }
            ComparedContent::Want(digests) => wanted += digests.len(),
        }
    }
    let gifts = compared.gives.then(|| "gifts follow".to_owned());
    sentence(
        format!("compared {}.{}:", compared.id, compared.number),
        [
            gifts,
            some(differ, "part differs", "parts differ"),
            some(few, "entry listed", "entries listed"),
            some(wanted, "entry wanted", "entries wanted"),
        ],
    )
}
