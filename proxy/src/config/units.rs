//! Durations and sizes with units, both ways.

use std::fmt;
use std::time::Duration;

const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A whole number and its unit (`ms`, `s`, `m`, `h`, `d`), as in `10s`. Exactly one of each, so that it can be read only one way.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    parse(text, &DURATION_UNITS).map(Duration::from_millis)
}

/// A whole number and its unit (`B`, `KiB`, `MiB`, `GiB`), as in `64KiB`.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    parse(text, &SIZE_UNITS)
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|character: char| !character.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// Writes a duration as [`parse_duration`] reads it, in the largest unit that divides it.
pub(super) struct DurationText(pub(super) Duration);

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX), &DURATION_UNITS, "0s")
    }
}

/// Writes a size as [`parse_size`] reads it, in the largest unit that divides it.
pub(super) struct SizeText(pub(super) u64);

impl fmt::Display for SizeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self.0, &SIZE_UNITS, "0B")
    }
}

fn write(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)], zero: &str) -> fmt::Result {
    for (unit, factor) in units {
        if value.is_multiple_of(*factor) && value > 0 {
            return write!(f, "{}{unit}", value / factor);
        }
    }
    f.write_str(zero)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_go_both_ways() {
        for (text, millis) in
            [("10s", 10_000), ("5m", 300_000), ("1h", 3_600_000), ("2d", 172_800_000), ("300ms", 300)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)));
            assert_eq!(DurationText(Duration::from_millis(millis)).to_string(), text);
        }
        assert_eq!(DurationText(Duration::from_secs(90)).to_string(), "90s");
        assert_eq!(DurationText(Duration::ZERO).to_string(), "0s");
        for bad in [
            "",
            "10",
            "s",
            "1.5s",
            "-1s",
            "1 s",
            "1h30m",
            "10sec",
            "99999999999999999999s",
            "999999999999999999d",
        ] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_go_both_ways() {
        for (text, bytes) in
            [("64KiB", 65_536), ("1MiB", 1_048_576), ("2GiB", 2_147_483_648), ("100B", 100), ("0B", 0)]
        {
            assert_eq!(parse_size(text), Some(bytes));
            assert_eq!(SizeText(bytes).to_string(), text);
        }
        for bad in ["64", "64k", "64KB", "64 KiB", "KiB", "1.5MiB"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }
}
