//! Column types and their canonical text, shared by the wire, manifests and the command line.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};

use crate::quote::quoted;

/// Type of a column.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are Arrow's")]
pub enum ColumnType {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
    Float32,
    Float64,
    Utf8,
    Binary,
    Date32,
    /// Unit, and a zone name or offset when the instants are zoned.
    Timestamp(TimeUnit, Option<Arc<str>>),
    /// Precision 1 to 38; scale 0 to the precision.
    Decimal128(u8, i8),
}

/// Text that does not name a type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown column type {shown}{problem}: use {}", ColumnType::ALL, shown = quoted(.text))]
pub struct TypeError {
    /// The text as given.
    pub text: String,
    /// Empty, or what is wrong with a nearly valid type.
    pub problem: String,
}

impl ColumnType {
    /// All types, as listed in error messages.
    pub const ALL: &str = "bool, int8 to int64, uint8 to uint64, float32, float64, utf8, binary, \
                           date32, timestamp(s|ms|us|ns[, ZONE]) or decimal128(PRECISION, SCALE)";

    /// The Arrow type of the column.
    pub fn arrow(&self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int8 => DataType::Int8,
            Self::Int16 => DataType::Int16,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::UInt8 => DataType::UInt8,
            Self::UInt16 => DataType::UInt16,
            Self::UInt32 => DataType::UInt32,
            Self::UInt64 => DataType::UInt64,
            Self::Float32 => DataType::Float32,
            Self::Float64 => DataType::Float64,
            Self::Utf8 => DataType::Utf8,
            Self::Binary => DataType::Binary,
            Self::Date32 => DataType::Date32,
            Self::Timestamp(unit, zone) => DataType::Timestamp(*unit, zone.clone()),
            Self::Decimal128(precision, scale) => DataType::Decimal128(*precision, *scale),
        }
    }

    /// Checks the type of a new column, whose time zone must exist. Stored types are not checked: a
    /// later release may know fewer zones.
    ///
    /// # Errors
    /// [`TypeError`] names the zone.
    pub fn check_new(&self) -> Result<(), TypeError> {
        match self {
            Self::Timestamp(_, Some(zone)) if !is_zone(zone) => Err(TypeError {
                text: self.to_string(),
                problem: format!(
                    " (unknown time zone {}: use a name such as UTC or Europe/Berlin, or an offset \
                     such as +02:00)",
                    quoted(zone)
                ),
            }),
            _ => Ok(()),
        }
    }

    /// Returns whether the type may be part of a primary key. Floats may not: NaN has no place in
    /// an order, and 0 equals -0.
    pub fn allowed_in_key(&self) -> bool {
        !matches!(self, Self::Float32 | Self::Float64)
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Bool => "bool",
            Self::Int8 => "int8",
            Self::Int16 => "int16",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::UInt8 => "uint8",
            Self::UInt16 => "uint16",
            Self::UInt32 => "uint32",
            Self::UInt64 => "uint64",
            Self::Float32 => "float32",
            Self::Float64 => "float64",
            Self::Utf8 => "utf8",
            Self::Binary => "binary",
            Self::Date32 => "date32",
            Self::Timestamp(unit, None) => return write!(f, "timestamp({})", unit_text(*unit)),
            Self::Timestamp(unit, Some(zone)) => {
                return write!(f, "timestamp({}, {zone})", unit_text(*unit));
            }
            Self::Decimal128(precision, scale) => {
                return write!(f, "decimal128({precision}, {scale})");
            }
        };
        f.write_str(name)
    }
}

impl FromStr for ColumnType {
    type Err = TypeError;

    fn from_str(text: &str) -> Result<Self, TypeError> {
        let text = text.trim();
        let unknown = |problem: &str| TypeError {
            text: text.to_owned(),
            problem: if problem.is_empty() { String::new() } else { format!(" ({problem})") },
        };
        let (name, arguments) = split_arguments(text).ok_or_else(|| unknown("unbalanced ()"))?;
        if name == "timestamp" {
            return timestamp(&arguments).map_err(unknown);
        }
        if name == "decimal128" {
            return decimal(&arguments).map_err(unknown);
        }
        if !arguments.is_empty() {
            return Err(unknown("no arguments expected"));
        }
        Ok(match name.as_str() {
            "bool" => Self::Bool,
            "int8" => Self::Int8,
            "int16" => Self::Int16,
            "int32" => Self::Int32,
            "int64" => Self::Int64,
            "uint8" => Self::UInt8,
            "uint16" => Self::UInt16,
            "uint32" => Self::UInt32,
            "uint64" => Self::UInt64,
            "float32" => Self::Float32,
            "float64" => Self::Float64,
            "utf8" => Self::Utf8,
            "binary" => Self::Binary,
            "date32" => Self::Date32,
            _ => return Err(unknown("")),
        })
    }
}

/// Returns whether a text is an offset from UTC, or a name in the IANA time zone database.
fn is_zone(text: &str) -> bool {
    let Some(offset) = text.strip_prefix(['+', '-']) else {
        return text.parse::<chrono_tz::Tz>().is_ok();
    };
    let digits = match offset.as_bytes() {
        [a, b] => [*a, *b, b'0', b'0'],
        [a, b, c, d] | [a, b, b':', c, d] => [*a, *b, *c, *d],
        _ => return false,
    };
    digits.iter().all(u8::is_ascii_digit)
        && (digits[0], digits[1]) <= (b'2', b'3')
        && digits[2] <= b'5'
}

fn unit_text(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    }
}

/// Splits `name(a, b)` into its lower-case name and its trimmed arguments.
fn split_arguments(text: &str) -> Option<(String, Vec<String>)> {
    match text.split_once('(') {
        None if text.contains(')') => None,
        None => Some((text.to_ascii_lowercase(), Vec::new())),
        Some((name, rest)) => {
            let inner = rest.strip_suffix(')')?;
            let arguments = inner.split(',').map(|argument| argument.trim().to_owned()).collect();
            Some((name.trim().to_ascii_lowercase(), arguments))
        }
    }
}

fn timestamp(arguments: &[String]) -> Result<ColumnType, &'static str> {
    let (unit, zone) = match arguments {
        [] => return Err("a unit is expected"),
        [unit] => (unit, None),
        [unit, zone] if !zone.is_empty() => (unit, Some(Arc::from(zone.as_str()))),
        _ => return Err("a unit and at most one zone expected"),
    };
    let unit = match unit.as_str() {
        "s" => TimeUnit::Second,
        "ms" => TimeUnit::Millisecond,
        "us" => TimeUnit::Microsecond,
        "ns" => TimeUnit::Nanosecond,
        _ => return Err("the unit must be s, ms, us or ns"),
    };
    Ok(ColumnType::Timestamp(unit, zone))
}

fn decimal(arguments: &[String]) -> Result<ColumnType, &'static str> {
    let [precision, scale] = arguments else { return Err("precision and scale expected") };
    let precision: u8 = precision.parse().map_err(|_| "the precision must be a number")?;
    let scale: i8 = scale.parse().map_err(|_| "the scale must be a number")?;
    if !(1..=38).contains(&precision) {
        return Err("the precision must be 1 to 38");
    }
    if scale < 0 || i16::from(scale) > i16::from(precision) {
        return Err("the scale must be 0 to the precision");
    }
    Ok(ColumnType::Decimal128(precision, scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn column_type_text_round_trips() {
        for text in [
            "bool",
            "int8",
            "int16",
            "int32",
            "int64",
            "uint8",
            "uint16",
            "uint32",
            "uint64",
            "float32",
            "float64",
            "utf8",
            "binary",
            "date32",
            "timestamp(s)",
            "timestamp(ms)",
            "timestamp(us, UTC)",
            "timestamp(ns, +02:00)",
            "decimal128(38, 0)",
            "decimal128(10, 2)",
        ] {
            let parsed: ColumnType = text.parse().unwrap();
            assert_eq!(parsed.to_string(), text);
        }
        assert_eq!(
            " TIMESTAMP( us ,UTC )".parse::<ColumnType>().unwrap().to_string(),
            "timestamp(us, UTC)"
        );
    }

    #[test]
    fn new_columns_have_known_time_zones() {
        for zone in ["UTC", "Europe/Berlin", "+00:00", "-0330", "+14", "+23:59", "Etc/GMT+5"] {
            let parsed: ColumnType = format!("timestamp(us, {zone})").parse().unwrap();
            assert_eq!(parsed.check_new(), Ok(()), "{zone}");
        }
        for zone in ["../../etc/passwd", "Mars/Olympus", "+24:00", "+1", "+01:60", "+", "utc+1"] {
            // Stored types stay readable.
            let parsed: ColumnType = format!("timestamp(us, {zone})").parse().unwrap();
            let error = parsed.check_new().unwrap_err().to_string();
            assert!(error.contains("unknown time zone"), "{error}");
        }
    }

    #[test]
    fn invalid_type_text_lists_the_valid_types() {
        for text in [
            "",
            "int",
            "int64(3)",
            "timestamp",
            "timestamp()",
            "timestamp(h)",
            "timestamp(s, a, b)",
            "decimal128",
            "decimal128(39, 1)",
            "decimal128(0, 0)",
            "decimal128(5, 6)",
            "decimal128(5, -1)",
            "utf8)",
            "decimal128(5, 2",
        ] {
            let error = text.parse::<ColumnType>().unwrap_err();
            assert!(error.to_string().contains("decimal128(PRECISION"), "{text}: {error}");
        }
    }
}
