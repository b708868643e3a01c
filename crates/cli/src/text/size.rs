//! Sizes in bytes: `4096`, `512MiB`, `2GB`.

use std::fmt;
use std::str::FromStr;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

/// An invalid size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SizeError {
    #[error("`{0}` is not a size: write a whole number and a unit, e.g. 512MiB or 2GiB")]
    Form(String),
    #[error("`{text}` has the unknown unit `{unit}`: use B, KiB, MiB, GiB, TiB, KB, MB, GB or TB")]
    Unit { text: String, unit: String },
    #[error("`{0}` is too large: the maximum is 2^64 - 1 bytes")]
    Overflow(String),
}

const UNITS: [(&str, u64); 14] = [
    ("b", 1),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("t", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("", 1),
];

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let trimmed = text.trim();
        let digits = trimmed.len() - trimmed.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = trimmed.split_at(digits);
        if number.is_empty() {
            return Err(SizeError::Form(text.to_owned()));
        }
        let unit = unit.trim();
        let Some((_, factor)) = UNITS.iter().find(|(name, _)| unit.eq_ignore_ascii_case(name))
        else {
            return Err(SizeError::Unit { text: text.to_owned(), unit: unit.to_owned() });
        };
        number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(*factor))
            .map(Self)
            .ok_or_else(|| SizeError::Overflow(text.to_owned()))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        for (unit, shift) in units {
            if self.0 >> shift != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse_with_binary_and_decimal_units() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("512MiB", 512 << 20),
            ("512 mib", 512 << 20),
            ("2G", 2 << 30),
            ("3GB", 3_000_000_000),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn invalid_sizes_are_rejected() {
        assert_eq!("".parse::<Size>(), Err(SizeError::Form("".into())));
        assert_eq!("-1MiB".parse::<Size>(), Err(SizeError::Form("-1MiB".into())));
        assert_eq!(
            "1.5GiB".parse::<Size>(),
            Err(SizeError::Unit { text: "1.5GiB".into(), unit: ".5GiB".into() })
        );
        assert_eq!("99999999TiB".parse::<Size>(), Err(SizeError::Overflow("99999999TiB".into())));
    }

    #[test]
    fn size_displays_in_its_largest_whole_unit() {
        assert_eq!(Size(512 << 20).to_string(), "512MiB");
        assert_eq!(Size(1000).to_string(), "1000");
        assert_eq!(Size(0).to_string(), "0");
    }
}
