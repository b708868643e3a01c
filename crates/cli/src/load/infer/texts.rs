//! Observations of texts: the kinds that occurred, and the type that represents all of them without
//! loss.

use std::sync::Arc;

use arrow::datatypes::TimeUnit;
use tidewater_common::schema::ColumnType;

use tidewater_readers::value::cell_error::ParseError;
use tidewater_readers::value::{number, time};

/// Greatest magnitude up to which every integer is a 64-bit float.
pub(crate) const MAX_EXACT: u64 = 1 << 53;

/// Time zone of inferred timestamps.
const ZONE: &str = "UTC";

/// Kind of one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    /// `wide`: not exact as a float.
    Integer {
        wide: bool,
    },
    Float,
    Date,
    /// `digits`: fractional digits of the seconds. `far`: outside the range of nanoseconds.
    Time {
        digits: usize,
        far: bool,
    },
    Other,
}

/// Observations of the texts of a column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Texts {
    bools: bool,
    integers: bool,
    wide_integers: bool,
    floats: bool,
    dates: bool,
    times: bool,
    time_digits: usize,
    far_times: bool,
    others: bool,
}

impl Texts {
    /// Adds a text that is not a missing value.
    pub(crate) fn observe(&mut self, text: &str) {
        // No other text changes the type.
        if self.others {
            return;
        }
        match kind(text) {
            Kind::Bool => self.bools = true,
            Kind::Integer { wide } => {
                self.integers = true;
                self.wide_integers |= wide;
            }
            Kind::Float => self.floats = true,
            Kind::Date => self.dates = true,
            Kind::Time { digits, far } => {
                self.times = true;
                self.time_digits = self.time_digits.max(digits);
                self.far_times |= far;
            }
            Kind::Other => self.others = true,
        }
    }

    /// Adds the observations of another file.
    pub(crate) fn join(&mut self, other: Self) {
        self.bools |= other.bools;
        self.integers |= other.integers;
        self.wide_integers |= other.wide_integers;
        self.floats |= other.floats;
        self.dates |= other.dates;
        self.times |= other.times;
        self.time_digits = self.time_digits.max(other.time_digits);
        self.far_times |= other.far_times;
        self.others |= other.others;
    }

    /// Returns true if an integer occurred that is not exact as a float.
    pub(crate) fn has_wide_integer(&self) -> bool {
        self.wide_integers
    }

    /// Returns the type of CSV cells; `None` without observations.
    pub(crate) fn data_type(&self) -> Option<ColumnType> {
        let kinds = [self.bools, self.integers, self.floats, self.dates, self.times, self.others];
        Some(match kinds {
            [false, false, false, false, false, false] => return None,
            [true, false, false, false, false, false] => ColumnType::Bool,
            [false, true, false, false, false, false] => ColumnType::Int64,
            [false, _, true, false, false, false] if !self.wide_integers => ColumnType::Float64,
            [false, false, false, true, false, false] => ColumnType::Date32,
            [false, false, false, false, true, false] => self.timestamp(),
            _ => ColumnType::Utf8,
        })
    }

    /// Returns the type of JSON strings, which are never numbers or booleans; `None` without
    /// observations.
    pub(crate) fn string_type(&self) -> Option<ColumnType> {
        self.data_type().map(|data_type| match data_type {
            ColumnType::Date32 | ColumnType::Timestamp(..) => data_type,
            _ => ColumnType::Utf8,
        })
    }

    fn timestamp(&self) -> ColumnType {
        let unit = match self.time_digits {
            0 => TimeUnit::Second,
            1..=3 => TimeUnit::Millisecond,
            4..=6 => TimeUnit::Microsecond,
            _ if self.far_times => return ColumnType::Utf8,
            _ => TimeUnit::Nanosecond,
        };
        ColumnType::Timestamp(unit, Some(Arc::from(ZONE)))
    }
}

/// Returns the kind of a text. Blanks around a number or a time have no meaning.
fn kind(text: &str) -> Kind {
    let text = text.trim();
    match text.as_bytes() {
        [b't' | b'T' | b'f' | b'F', ..] => {
            let is_bool = text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false");
            if is_bool { Kind::Bool } else { Kind::Other }
        }
        b"NaN" | b"inf" | b"-inf" => Kind::Float,
        [b'0'..=b'9' | b'-' | b'.', ..] => number_kind(text)
            .or_else(|| time::date(text).ok().map(|_| Kind::Date))
            .or_else(|| time_kind(text))
            .unwrap_or(Kind::Other),
        // A plus sign would be lost in a number, e.g. of a telephone.
        _ => Kind::Other,
    }
}

fn number_kind(text: &str) -> Option<Kind> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let whole = digits.bytes().take_while(u8::is_ascii_digit).count();
    // Leading zeros have a meaning, e.g. in a postal code, and would be lost in a number.
    if whole > 1 && digits.starts_with('0') {
        return None;
    }
    if whole > 0 && whole == digits.len() {
        let value = number::integer::<i64>(text).ok()?;
        return Some(Kind::Integer { wide: value.unsigned_abs() > MAX_EXACT });
    }
    let is_sign = |byte: u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
    (digits.bytes().all(is_sign) && number::float64(text).is_ok()).then_some(Kind::Float)
}

/// Returns the kind of a time in the form of RFC 3339: with seconds and an offset.
fn time_kind(text: &str) -> Option<Kind> {
    let rest = text.as_bytes().get(19..)?;
    let fraction = match rest {
        [b'.', fraction @ ..] => fraction,
        _ => &[],
    };
    let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let offset = if digits == 0 { rest } else { fraction.get(digits..)? };
    let has_offset = matches!(offset, [b'Z' | b'z'] | [b'+' | b'-', _, _, b':', _, _]);
    if !has_offset || text.as_bytes().get(16) != Some(&b':') {
        return None;
    }
    match time::timestamp(text, TimeUnit::Nanosecond) {
        Ok(_) => Some(Kind::Time { digits, far: false }),
        Err(ParseError::Range) => Some(Kind::Time { digits, far: true }),
        Err(ParseError::Form | ParseError::Precision) => None,
    }
}

#[cfg(test)]
#[path = "texts_tests.rs"]
mod tests;
