use proptest::prelude::*;

use super::*;

/// Bytes of a numeric: weight, sign, display scale and digits.
fn bytes(weight: i16, sign: u16, scale: u16, digits: &[u16]) -> Vec<u8> {
    let count = u16::try_from(digits.len()).unwrap();
    let words = [count, weight.cast_unsigned(), sign, scale];
    words.iter().chain(digits).flat_map(|word| word.to_be_bytes()).collect()
}

fn scaled(bytes: &[u8], scale: i32) -> Option<i128> {
    Numeric::read(bytes).unwrap().scaled(scale)
}

/// Encodes a decimal with `scale` digits after the point as PostgreSQL does: without zeros at both ends.
fn encode(unscaled: i128, scale: usize) -> Vec<u8> {
    let padding = (4 - scale % 4) % 4;
    let text = unscaled.unsigned_abs().to_string() + &"0".repeat(padding);
    let text = "0".repeat((4 - text.len() % 4) % 4) + &text;
    let groups: Vec<u16> = text
        .as_bytes()
        .chunks(4)
        .map(|g| std::str::from_utf8(g).unwrap().parse().unwrap())
        .collect();
    let weight = groups.len() - 1;
    let fraction = (scale + padding) / 4;
    let leading = groups.iter().take_while(|group| **group == 0).count();
    let trailing = groups[leading..].iter().rev().take_while(|group| **group == 0).count();
    let digits = &groups[leading..groups.len() - trailing];
    let weight = i16::try_from(weight).unwrap() - i16::try_from(fraction + leading).unwrap();
    let weight = if digits.is_empty() { 0 } else { weight };
    let sign = if unscaled < 0 { NEGATIVE } else { 0 };
    bytes(weight, sign, u16::try_from(scale).unwrap(), digits)
}

#[test]
fn golden_numerics_decode() {
    for (bytes, text, scale, expected) in [
        (bytes(0, 0, 0, &[]), "0", 2, Some(0)),
        (bytes(0, 0, 2, &[]), "0.00", 0, Some(0)),
        (bytes(0, 0, 0, &[1]), "1", 2, Some(100)),
        (bytes(1, 0, 2, &[1, 2_345, 6_700]), "12345.67", 2, Some(1_234_567)),
        (bytes(1, 0, 2, &[1, 2_345, 6_700]), "12345.67", 4, Some(123_456_700)),
        (bytes(1, 0, 2, &[1, 2_345, 6_700]), "12345.67", 1, None),
        (bytes(0, NEGATIVE, 1, &[7, 5_000]), "-7.5", 1, Some(-75)),
        (bytes(-1, 0, 4, &[1]), "0.0001", 4, Some(1)),
        (bytes(-2, 0, 8, &[1]), "0.00000001", 8, Some(1)),
        (bytes(-2, 0, 8, &[1]), "0.00000001", 4, None),
        (bytes(-2, 0, 8, &[1_000]), "0.00001000", 5, Some(1)),
        (bytes(2, 0, 0, &[1]), "100000000", 1, Some(1_000_000_000)),
        (bytes(10, 0, 0, &[1]), "10000000000000000000000000000000000000000", 0, None),
    ] {
        let numeric = Numeric::read(&bytes).unwrap();
        assert_eq!(numeric.text(), text);
        assert_eq!(numeric.scaled(scale), expected, "{text} with {scale} digits");
    }
}

#[test]
fn special_numerics_do_not_fit() {
    for (sign, name) in [(NAN, "NaN"), (INFINITY, "Infinity"), (NEGATIVE_INFINITY, "-Infinity")] {
        let error = Numeric::read(&bytes(0, sign, 0, &[])).unwrap_err();
        assert_eq!(error, ValueError::DoesNotFit(name.to_owned()));
    }
}

#[test]
fn damaged_numerics_are_typed_errors() {
    let golden = bytes(1, 0, 2, &[1, 2_345, 6_700]);
    for length in 0..golden.len() {
        let error = Numeric::read(&golden[..length]).unwrap_err();
        assert!(matches!(error, ValueError::Damaged(_)), "{length} bytes: {error}");
    }
    for bytes in [bytes(0, 1, 0, &[1]), bytes(0, 0, 0, &[10_000]), [golden, vec![0, 0]].concat()] {
        let error = Numeric::read(&bytes).unwrap_err();
        assert!(matches!(error, ValueError::Damaged(_)), "{bytes:?}: {error}");
    }
}

#[test]
fn numerics_keep_38_digits() {
    let most = 10_i128.pow(38) - 1;
    for scale in 0..=38_usize {
        for value in [most, -most, most - 7, 1, -1] {
            let found = scaled(&encode(value, scale), i32::try_from(scale).unwrap());
            assert_eq!(found, Some(value), "{scale} digits after the point");
        }
    }
}

#[test]
fn numeric_floats_are_the_nearest() {
    let float = |value: i128, scale: usize| Numeric::read(&encode(value, scale)).unwrap().float();
    assert_eq!(float(1, 1), Some(0.1));
    assert_eq!(float(-123_456_789, 4), Some(-12_345.678_9));
    assert_eq!(float(9_007_199_254_740_993, 0), Some(9_007_199_254_740_992.0));
    assert_eq!(float(1, 30), Some(1e-30));
    let huge = bytes(100, 0, 0, &[1]);
    assert_eq!(Numeric::read(&huge).unwrap().float(), None);
}

proptest! {
    #[test]
    fn numerics_round_trip(value in -(10_i128.pow(38) - 1)..10_i128.pow(38), scale in 0_usize..39) {
        let bytes = encode(value, scale);
        let numeric = Numeric::read(&bytes).unwrap();
        prop_assert_eq!(numeric.scaled(i32::try_from(scale).unwrap()), Some(value));
        let nearest: f64 = format!("{value}e-{scale}").parse().unwrap();
        prop_assert_eq!(numeric.float(), Some(nearest));
    }

    #[test]
    fn numerics_accept_any_bytes_without_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..40),
        digits in prop::collection::vec(0_u16..10_000, 0..20),
        weight: i16,
        scale in 0_u16..0x3fff,
        target in 0_i32..39,
    ) {
        for bytes in [bytes, self::bytes(weight, NEGATIVE, scale, &digits)] {
            if let Ok(numeric) = Numeric::read(&bytes) {
                let _ = (numeric.scaled(target), numeric.text(), numeric.float());
            }
        }
    }
}
