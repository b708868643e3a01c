//! Decimal numbers of a fixed scale.

use super::cell_error::ParseError;

/// Parses `text` to its value times 10^`scale`, with at most `precision` digits. Does not round.
pub(crate) fn decimal(text: &str, precision: u8, scale: i8) -> Result<i128, ParseError> {
    let (negative, rest) = match text.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let scale = usize::try_from(scale).map_err(|_| ParseError::Form)?;
    let point = rest.iter().position(|byte| *byte == b'.').unwrap_or(rest.len());
    let whole = &rest[..point];
    let fraction = rest.get(point + 1..).unwrap_or_default();
    let all_digits = whole.iter().chain(fraction).all(u8::is_ascii_digit);
    if !all_digits || whole.len() + fraction.len() == 0 {
        return Err(ParseError::Form);
    }
    let (kept, dropped) = fraction.split_at(fraction.len().min(scale));
    if dropped.iter().any(|digit| *digit != b'0') {
        return Err(ParseError::Precision);
    }
    let zeros = std::iter::repeat_n(&b'0', scale - kept.len());
    let mut value = 0_i128;
    for digit in whole.iter().chain(kept).chain(zeros) {
        value = value
            .checked_mul(10)
            .and_then(|value| value.checked_add(i128::from(digit - b'0')))
            .ok_or(ParseError::Range)?;
    }
    if value >= 10_i128.checked_pow(precision.into()).unwrap_or(i128::MAX) {
        return Err(ParseError::Range);
    }
    Ok(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_scaled() {
        for (text, precision, scale, value) in [
            ("1.5", 10, 2, 150),
            ("-1.50", 10, 2, -150),
            ("12", 10, 0, 12),
            (".5", 10, 1, 5),
            ("5.", 10, 1, 50),
            ("1.500", 10, 2, 150),
            ("+0.07", 3, 2, 7),
            ("0000000000000000000000000000000000000000001", 1, 0, 1),
        ] {
            assert_eq!(decimal(text, precision, scale), Ok(value), "{text}");
        }
        let largest = "9".repeat(38);
        assert_eq!(decimal(&largest, 38, 0), Ok(10_i128.pow(38) - 1));
    }

    #[test]
    fn decimals_are_neither_rounded_nor_truncated() {
        assert_eq!(decimal("1.555", 10, 2), Err(ParseError::Precision));
        assert_eq!(decimal("100", 2, 0), Err(ParseError::Range));
        assert_eq!(decimal("10", 3, 2), Err(ParseError::Range));
        assert_eq!(decimal(&"9".repeat(60), 38, 0), Err(ParseError::Range));
        for text in ["", ".", "-", "1.2.3", "1e5", "abc", "1,5", "٣"] {
            assert_eq!(decimal(text, 10, 2), Err(ParseError::Form), "{text}");
        }
    }
}
