//! What keys say, and in which datacenters: everywhere the same, or not.

use std::collections::BTreeMap;
use std::process::ExitCode;

use shardgate_discovery::consul::{Datacenter, Survey};

use super::{WRONG, tell};

/// The most names that a hint lists.
const NAMES_MAX: usize = 12;

/// Names with commas; of many the first ones.
pub(super) fn list(names: &[&str]) -> String {
    let more = names.len().saturating_sub(NAMES_MAX);
    let some = names[..names.len() - more].join(", ");
    if more == 0 { some } else { format!("{some} and {more} more") }
}

/// Each value that a key has, and where: `all`, or the datacenters.
pub(super) fn spread(survey: &Survey, said: &BTreeMap<Datacenter, String>) -> Vec<(String, String)> {
    let mut values: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (datacenter, value) in said {
        values.entry(value).or_default().push(datacenter.as_str());
    }
    let place = |datacenters: Vec<&str>| {
        if datacenters.len() == survey.asked() { "all".to_owned() } else { datacenters.join(", ") }
    };
    values.into_iter().map(|(value, datacenters)| (value.to_owned(), place(datacenters))).collect()
}

/// The exit code of a command that shows `keys`, or `keys` and `shards`, after telling what it lacks.
pub(super) fn told(survey: &Survey, lists: &[&str]) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for missing in survey.unanswered().iter().filter(|missing| lists.contains(&missing.what)) {
        tell(&format!("{} of {} are not known: {}", missing.what, missing.datacenter, missing.error));
        code = ExitCode::from(WRONG);
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_names_the_first_are_listed() {
        assert_eq!(list(&["a", "b"]), "a, b");
        let many: Vec<&str> = std::iter::repeat_n("a", 14).collect();
        assert!(list(&many).ends_with("a, a and 2 more"));
    }
}
