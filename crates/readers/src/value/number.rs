//! Parsers of whole and floating point numbers, booleans and bytes.

use super::cell_error::ParseError;

/// Parses a whole number in the range of `T`: an optional sign and digits.
pub fn integer<T: TryFrom<i128>>(text: &str) -> Result<T, ParseError> {
    let bytes = text.as_bytes();
    let (negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return Err(ParseError::Form);
    }
    let magnitude = magnitude(digits)?;
    let value = i128::from(magnitude);
    T::try_from(if negative { -value } else { value }).map_err(|_| ParseError::Range)
}

fn magnitude(digits: &[u8]) -> Result<u64, ParseError> {
    let mut value = 0_u64;
    // 19 digits cannot overflow, so they need no check per digit.
    let (head, tail) = digits.split_at(digits.len().min(19));
    for digit in head {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return Err(ParseError::Form);
        }
        value = value * 10 + u64::from(digit);
    }
    let mut fits = true;
    for digit in tail {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return Err(ParseError::Form);
        }
        match value.checked_mul(10).and_then(|value| value.checked_add(u64::from(digit))) {
            Some(next) if fits => value = next,
            _ => fits = false,
        }
    }
    if fits { Ok(value) } else { Err(ParseError::Range) }
}

/// Parses a 64-bit floating point number. A number out of range is an error, not infinity.
pub fn float64(text: &str) -> Result<f64, ParseError> {
    let value: f64 = text.parse().map_err(|_| ParseError::Form)?;
    if value.is_infinite() && text.bytes().any(|byte| byte.is_ascii_digit()) {
        return Err(ParseError::Range);
    }
    Ok(value)
}

/// Parses a 32-bit floating point number. A number out of range is an error, not infinity.
pub fn float32(text: &str) -> Result<f32, ParseError> {
    let value: f32 = text.parse().map_err(|_| ParseError::Form)?;
    if value.is_infinite() && text.bytes().any(|byte| byte.is_ascii_digit()) {
        return Err(ParseError::Range);
    }
    Ok(value)
}

/// Parses `true`, `false`, `t`, `f`, `1` or `0`, in upper or lower case.
pub fn boolean(text: &str) -> Result<bool, ParseError> {
    let is = |word: &str| text.eq_ignore_ascii_case(word);
    if is("true") || is("t") || text == "1" {
        Ok(true)
    } else if is("false") || is("f") || text == "0" {
        Ok(false)
    } else {
        Err(ParseError::Form)
    }
}

/// Parses bytes in hexadecimal, with or without the prefix `0x` or `\x`.
pub fn hexadecimal(text: &str, out: &mut Vec<u8>) -> Result<(), ParseError> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("\\x")).unwrap_or(text);
    let nibble = |byte: u8| match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        b'A'..=b'F' => Ok(byte - b'A' + 10),
        _ => Err(ParseError::Form),
    };
    out.clear();
    let mut pairs = digits.as_bytes().chunks_exact(2);
    for pair in &mut pairs {
        out.push(nibble(pair[0])? << 4 | nibble(pair[1])?);
    }
    if pairs.remainder().is_empty() { Ok(()) } else { Err(ParseError::Form) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_parse_at_both_ends_of_their_range() {
        assert_eq!(integer("-128"), Ok(i8::MIN));
        assert_eq!(integer("127"), Ok(i8::MAX));
        assert_eq!(integer("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(integer("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(integer("+007"), Ok(7_u8));
        assert_eq!(integer("-0"), Ok(0_u8));
    }

    #[test]
    fn integers_beyond_their_range_overflow() {
        assert_eq!(integer::<i8>("128"), Err(ParseError::Range));
        assert_eq!(integer::<u8>("-1"), Err(ParseError::Range));
        assert_eq!(integer::<i64>("9223372036854775808"), Err(ParseError::Range));
        assert_eq!(integer::<u64>("18446744073709551616"), Err(ParseError::Range));
        assert_eq!(integer::<u64>("99999999999999999999999999999"), Err(ParseError::Range));
    }

    #[test]
    fn invalid_integers_are_rejected() {
        for text in ["", "-", "+", "1.0", "1e3", "0x1", "--1", "1-", "abc", "NA", "１"] {
            assert_eq!(integer::<i64>(text), Err(ParseError::Form), "{text}");
        }
        assert_eq!(integer::<i64>("99999999999999999999999x"), Err(ParseError::Form));
    }

    #[test]
    fn floats_parse_and_overflow() {
        assert_eq!(float64("-1.5e3"), Ok(-1500.0));
        assert!(float64("NaN").unwrap().is_nan());
        assert_eq!(float64("inf"), Ok(f64::INFINITY));
        assert_eq!(float64("1e400"), Err(ParseError::Range));
        assert_eq!(float32("1e39"), Err(ParseError::Range));
        assert_eq!(float32("0.5"), Ok(0.5));
        assert_eq!(float64("1,5"), Err(ParseError::Form));
    }

    #[test]
    fn booleans_and_bytes_parse() {
        assert_eq!(boolean("TRUE"), Ok(true));
        assert_eq!(boolean("0"), Ok(false));
        assert_eq!(boolean("yes"), Err(ParseError::Form));
        let mut out = vec![9];
        assert_eq!(hexadecimal("0x00fF", &mut out), Ok(()));
        assert_eq!(out, [0, 255]);
        assert_eq!(hexadecimal("abc", &mut out), Err(ParseError::Form));
        assert_eq!(hexadecimal("zz", &mut out), Err(ParseError::Form));
        assert_eq!(hexadecimal("", &mut out), Ok(()));
        assert_eq!(out, [0_u8; 0]);
    }
}
