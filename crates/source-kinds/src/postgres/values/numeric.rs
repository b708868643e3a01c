//! Decimals of any length.
//!
//! The binary form is a sign and digits of base 10,000: digit `i` counts multiples of `10000^(weight - i)`.

use arrow::datatypes::{Decimal128Type, Float64Type};
use tidewater_common::schema::ColumnType;

use super::{ColumnBuilder, ValueError, fixed_column, numbers};

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xc000;
const INFINITY: u16 = 0xd000;
const NEGATIVE_INFINITY: u16 = 0xf000;
/// Bits of the display scale.
const SCALE_MASK: u16 = 0x3fff;
/// Decimal digits in a digit of base 10,000.
const GROUP: i32 = 4;
const BASE: u16 = 10_000;
/// Integers up to this are exact as floats.
const MAX_EXACT: i128 = 1 << 53;
/// Powers of ten that are exact as floats, up to the scales that columns usually have.
const EXACT_POWERS: [f64; 10] = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// Returns the builder of a column whose fields are decimals. The conversion to a float rounds to the nearest one.
pub(super) fn numeric(to: &ColumnType) -> Option<Box<dyn ColumnBuilder>> {
    match *to {
        ColumnType::Decimal128(precision, scale) => {
            let limit = 10_i128.checked_pow(precision.into())?;
            fixed_column::<Decimal128Type, _>(to, move |field| {
                let numeric = Numeric::read(field)?;
                let scaled = numeric.scaled(scale.into()).filter(|scaled| scaled.abs() < limit);
                scaled.ok_or_else(|| ValueError::does_not_fit(numeric.text()))
            })
        }
        ColumnType::Float64 => fixed_column::<Float64Type, _>(to, |field| {
            let numeric = Numeric::read(field)?;
            let float = numeric.float();
            float.ok_or_else(|| ValueError::does_not_fit(numeric.text()))
        }),
        ColumnType::Float32 => None,
        _ => numbers::integer(
            |field| {
                let numeric = Numeric::read(field)?;
                numeric.scaled(0).ok_or_else(|| ValueError::does_not_fit(numeric.text()))
            },
            to,
        ),
    }
}

/// A decimal in its binary form.
#[derive(Debug, Clone, Copy)]
struct Numeric<'a> {
    is_negative: bool,
    weight: i32,
    /// Decimal digits after the point, for people.
    display_scale: usize,
    /// Digits of base 10,000, each of two bytes.
    digits: &'a [[u8; 2]],
}

impl<'a> Numeric<'a> {
    fn read(field: &'a [u8]) -> Result<Self, ValueError> {
        let (words, []) = field.as_chunks::<2>() else { return Err(ValueError::length(field)) };
        let Some(([count, weight, sign, scale], digits)) = words.split_first_chunk() else {
            return Err(ValueError::length(field));
        };
        if usize::from(u16::from_be_bytes(*count)) != digits.len() {
            return Err(ValueError::length(field));
        }
        let is_negative = match u16::from_be_bytes(*sign) {
            0 => false,
            NEGATIVE => true,
            NAN => return Err(ValueError::does_not_fit("NaN")),
            INFINITY => return Err(ValueError::does_not_fit("Infinity")),
            NEGATIVE_INFINITY => return Err(ValueError::does_not_fit("-Infinity")),
            other => return Err(ValueError::Damaged(format!("a numeric has the sign {other:#x}"))),
        };
        if let Some(digit) = digits.iter().find(|digit| u16::from_be_bytes(**digit) >= BASE) {
            return Err(ValueError::Damaged(format!("a numeric has the digit {digit:?}")));
        }
        Ok(Self {
            is_negative,
            weight: i16::from_be_bytes(*weight).into(),
            display_scale: (u16::from_be_bytes(*scale) & SCALE_MASK).into(),
            digits,
        })
    }

    /// Returns the digit of a weight.
    fn digit(&self, weight: i32) -> u16 {
        let index = usize::try_from(self.weight - weight).ok();
        index.and_then(|index| self.digits.get(index)).map_or(0, |d| u16::from_be_bytes(*d))
    }

    /// Returns the value multiplied by `10^scale`; `None` if that is not an integer, or above 128 bits.
    fn scaled(&self, scale: i32) -> Option<i128> {
        let mut value = 0_i128;
        // Exponent of the last digit of `value`.
        let mut exponent = None;
        for (weight, digit) in (0..).map(|index| self.weight - index).zip(self.digits) {
            let digit = u16::from_be_bytes(*digit);
            let place = weight * GROUP + scale;
            if place >= 0 {
                value = value.checked_mul(BASE.into())?.checked_add(digit.into())?;
                exponent = Some(place);
                continue;
            }
            // The column has the upper digits of this group, or none.
            let lost = u16::try_from(-place).ok().filter(|lost| i32::from(*lost) < GROUP);
            let Some(lost) = lost else {
                if digit != 0 {
                    return None;
                }
                continue;
            };
            let unit = 10_u16.pow(lost.into());
            if digit % unit != 0 {
                return None;
            }
            value = value.checked_mul((BASE / unit).into())?.checked_add((digit / unit).into())?;
            exponent = Some(0);
        }
        let exponent = u32::try_from(exponent.unwrap_or(0)).ok()?;
        let value = match value {
            0 => 0,
            value => value.checked_mul(10_i128.checked_pow(exponent)?)?,
        };
        Some(if self.is_negative { -value } else { value })
    }

    /// Returns the nearest float; `None` if it is infinite.
    fn float(&self) -> Option<f64> {
        // A quotient of two exact floats is rounded once.
        let unit = EXACT_POWERS.get(self.display_scale);
        let scaled = i32::try_from(self.display_scale).ok().and_then(|scale| self.scaled(scale));
        if let (Some(unit), Some(scaled)) = (unit, scaled.filter(|n| n.abs() <= MAX_EXACT)) {
            return Some(scaled as f64 / unit);
        }
        self.text().parse().ok().filter(|float: &f64| float.is_finite())
    }

    /// Returns the value as PostgreSQL shows it.
    fn text(&self) -> String {
        let mut text = String::new();
        if self.is_negative {
            text.push('-');
        }
        text.push_str(&self.digit(self.weight.max(0)).to_string());
        for weight in (0..self.weight).rev() {
            push_group(&mut text, self.digit(weight));
        }
        if self.display_scale == 0 {
            return text;
        }
        text.push('.');
        let end = text.len() + self.display_scale;
        let mut weight = -1;
        while text.len() < end {
            push_group(&mut text, self.digit(weight));
            weight -= 1;
        }
        text.truncate(end);
        text
    }
}

fn push_group(text: &mut String, digit: u16) {
    for unit in [1_000, 100, 10, 1] {
        text.push(char::from_digit(u32::from(digit / unit % 10), 10).unwrap_or('0'));
    }
}

#[cfg(test)]
mod tests;
