//! Parsers of dates and times: `YYYY-MM-DD`, `YYYY-MM-DD HH:MM[:SS[.FRACTION]]`, RFC 3339.
//!
//! A time without an offset is in UTC, even for a column with a zone.

use arrow::datatypes::TimeUnit;

use super::cell_error::ParseError;

/// Parses a date to days since 1970-01-01.
pub fn date(text: &str) -> Result<i32, ParseError> {
    let (days, rest) = leading_date(text.as_bytes())?;
    if !rest.is_empty() {
        return Err(ParseError::Form);
    }
    i32::try_from(days).map_err(|_| ParseError::Range)
}

/// Parses a timestamp to units since 1970-01-01T00:00:00Z.
pub fn timestamp(text: &str, unit: TimeUnit) -> Result<i64, ParseError> {
    let (days, rest) = leading_date(text.as_bytes())?;
    let clock = match rest {
        [] => Clock::default(),
        [b'T' | b't' | b' ', rest @ ..] => leading_clock(rest)?,
        _ => return Err(ParseError::Form),
    };
    let seconds = days * 86_400 + clock.seconds - clock.offset_seconds;
    let (per_second, nanos_per_unit) = match unit {
        TimeUnit::Second => (1, 1_000_000_000),
        TimeUnit::Millisecond => (1_000, 1_000_000),
        TimeUnit::Microsecond => (1_000_000, 1_000),
        TimeUnit::Nanosecond => (1_000_000_000, 1),
    };
    if clock.nanos % nanos_per_unit != 0 {
        return Err(ParseError::Precision);
    }
    seconds
        .checked_mul(per_second)
        .and_then(|units| units.checked_add(clock.nanos / nanos_per_unit))
        .ok_or(ParseError::Range)
}

#[derive(Default)]
struct Clock {
    seconds: i64,
    nanos: i64,
    offset_seconds: i64,
}

fn number(digits: &[u8]) -> Result<i64, ParseError> {
    digits.iter().try_fold(0_i64, |value, digit| {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 { Err(ParseError::Form) } else { Ok(value * 10 + i64::from(digit)) }
    })
}

fn leading_date(text: &[u8]) -> Result<(i64, &[u8]), ParseError> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, rest @ ..] = text else {
        return Err(ParseError::Form);
    };
    let year = number(&[*y1, *y2, *y3, *y4])?;
    let month = number(&[*m1, *m2])?;
    let day = number(&[*d1, *d2])?;
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return Err(ParseError::Form);
    }
    Ok((days_from_civil(year, month, day), rest))
}

fn days_in_month(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar, for years 0 to 9999.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // The algorithm's years begin in March, so that the leap day is the last day of its year.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn leading_clock(text: &[u8]) -> Result<Clock, ParseError> {
    let [h1, h2, b':', m1, m2, rest @ ..] = text else { return Err(ParseError::Form) };
    let hour = number(&[*h1, *h2])?;
    let minute = number(&[*m1, *m2])?;
    let (second, nanos, rest) = match rest {
        [b':', s1, s2, rest @ ..] => {
            let second = number(&[*s1, *s2])?;
            let (nanos, rest) = leading_fraction(rest)?;
            (second, nanos, rest)
        }
        rest => (0, 0, rest),
    };
    if hour > 23 || minute > 59 || second > 59 {
        return Err(ParseError::Form);
    }
    let seconds = hour * 3_600 + minute * 60 + second;
    Ok(Clock { seconds, nanos, offset_seconds: offset(rest)? })
}

fn leading_fraction(text: &[u8]) -> Result<(i64, &[u8]), ParseError> {
    let [b'.' | b',', rest @ ..] = text else { return Ok((0, text)) };
    let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = rest.split_at(length);
    if digits.is_empty() {
        return Err(ParseError::Form);
    }
    let (kept, dropped) = digits.split_at(length.min(9));
    if dropped.iter().any(|digit| *digit != b'0') {
        return Err(ParseError::Precision);
    }
    let nanos = kept.iter().chain(std::iter::repeat_n(&b'0', 9 - kept.len()));
    Ok((nanos.fold(0, |value, digit| value * 10 + i64::from(digit - b'0')), rest))
}

fn offset(text: &[u8]) -> Result<i64, ParseError> {
    let (sign, rest) = match text {
        [] | [b'Z' | b'z'] => return Ok(0),
        [b' ', rest @ ..] if rest == b"UTC" || rest == b"Z" => return Ok(0),
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return Err(ParseError::Form),
    };
    let (hours, minutes) = match rest {
        [h1, h2, b':', m1, m2] | [h1, h2, m1, m2] => (number(&[*h1, *h2])?, number(&[*m1, *m2])?),
        [h1, h2] => (number(&[*h1, *h2])?, 0),
        _ => return Err(ParseError::Form),
    };
    if hours > 23 || minutes > 59 {
        return Err(ParseError::Form);
    }
    Ok(sign * (hours * 3_600 + minutes * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_parse_to_days_since_the_epoch() {
        for (text, days) in [
            ("1970-01-01", 0),
            ("1969-12-31", -1),
            ("2000-02-29", 11_016),
            ("2013-01-01", 15_706),
            ("0000-03-01", -719_468),
            ("9999-12-31", 2_932_896),
        ] {
            assert_eq!(date(text), Ok(days), "{text}");
        }
        for text in ["", "2013-1-1", "2013-13-01", "2013-02-29", "1900-02-29", "2013-01-01x"] {
            assert_eq!(date(text), Err(ParseError::Form), "{text}");
        }
    }

    #[test]
    fn timestamps_parse_to_units_since_the_epoch() {
        use TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
        for (text, unit, value) in [
            ("2013-01-01T10:00:00Z", Second, 1_357_034_400),
            ("2013-01-01 10:00:00", Second, 1_357_034_400),
            ("2013-01-01 10:00", Millisecond, 1_357_034_400_000),
            ("2013-01-01", Millisecond, 1_356_998_400_000),
            ("2013-01-01T10:00:00.25+02:00", Millisecond, 1_357_027_200_250),
            ("2013-01-01T10:00:00-0530", Second, 1_357_054_200),
            ("2013-01-01T10:00:00.123456789z", Nanosecond, 1_357_034_400_123_456_789),
            ("1969-12-31 23:59:59.999999", Microsecond, -1),
            ("2013-01-01 10:00:00 UTC", Second, 1_357_034_400),
        ] {
            assert_eq!(timestamp(text, unit), Ok(value), "{text}");
        }
    }

    #[test]
    fn invalid_timestamps_are_rejected() {
        for text in [
            "",
            "2013-01-01T",
            "2013-01-01T25:00:00",
            "2013-01-01T10:60",
            "2013-01-01T10:00:00.",
            "2013-01-01T10:00:00+2",
            "1357034400",
            "01/02/2013",
            "2013-01-01T10:00:00 CET",
        ] {
            assert_eq!(timestamp(text, TimeUnit::Second), Err(ParseError::Form), "{text}");
        }
        assert_eq!(
            timestamp("2013-01-01T10:00:00.5", TimeUnit::Second),
            Err(ParseError::Precision)
        );
        assert_eq!(timestamp("9999-01-01", TimeUnit::Nanosecond), Err(ParseError::Range));
        assert!(timestamp("2262-04-11T23:47:16.854775807Z", TimeUnit::Nanosecond).is_ok());
    }
}
