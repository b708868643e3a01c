//! Amounts in the form that people read: sizes, durations, counts. JSON has plain numbers instead.

use std::time::Duration;

/// Units of sizes, each 1024 times the one before it.
const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Formats a number of bytes with one decimal place in the largest unit that it reaches.
pub(crate) fn bytes_text(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut amount = bytes as f64 / 1024.0;
    let mut unit = 0;
    // Also when it would round to 1024.0.
    while amount >= 1023.95 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}

/// Formats a duration in its two largest units. Below a minute it has one decimal place, below a second
/// it is in milliseconds.
pub(crate) fn duration_text(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms < 1_000 {
        return format!("{ms} ms");
    }
    // From 59.95 s on, one decimal place would show 60.0 s.
    if ms < 59_950 {
        return format!("{:.1} s", ms as f64 / 1_000.0);
    }
    let seconds = u64::try_from((ms + 500) / 1_000).unwrap_or(u64::MAX);
    let (large, small) = match seconds {
        0..HOUR => ((seconds / MINUTE, "m"), (seconds % MINUTE, "s")),
        HOUR..DAY => ((seconds / HOUR, "h"), (seconds % HOUR / MINUTE, "m")),
        DAY.. => ((seconds / DAY, "d"), (seconds % DAY / HOUR, "h")),
    };
    format!("{}{} {}{}", large.0, large.1, small.0, small.1)
}

/// Formats a number of seconds as [`duration_text`] does; a number that is not a duration as 0.
pub(crate) fn seconds_text(seconds: f64) -> String {
    duration_text(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

/// Formats a number with commas between thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_the_largest_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (114_157, "111.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (3 << 29, "1.5 GiB"),
            (1 << 50, "1.0 PiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(bytes_text(bytes), text);
        }
    }

    #[test]
    fn durations_are_shown_in_two_units() {
        for (ms, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1.0 s"),
            (59_949, "59.9 s"),
            (59_950, "1m 0s"),
            (192_000, "3m 12s"),
            (3_599_499, "59m 59s"),
            (3_599_500, "1h 0m"),
            (7_530_000, "2h 5m"),
            (86_400_000, "1d 0h"),
            (u64::MAX, "213503982334d 14h"),
        ] {
            assert_eq!(duration_text(Duration::from_millis(ms)), text, "{ms}");
        }
    }

    #[test]
    fn invalid_seconds_are_shown_as_zero() {
        for (seconds, text) in
            [(0.25, "250 ms"), (2.0, "2.0 s"), (-1.0, "0 ms"), (f64::NAN, "0 ms")]
        {
            assert_eq!(seconds_text(seconds), text);
        }
    }

    #[test]
    fn grouped_separates_thousands() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (336_776, "336,776"),
            (1_000_000, "1,000,000"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }
}
