//! Timestamps in another zone. The stored numbers are unchanged: an instant is the same in every zone,
//! while a cast between zones would shift it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowTimestampType, DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use arrow::error::ArrowError;
use arrow::util::display::array_value_to_string;

/// Returns the array as timestamps of the same unit in `zone`; other arrays unchanged.
pub fn in_zone(array: &ArrayRef, zone: Option<&str>) -> ArrayRef {
    let zone: Option<Arc<str>> = zone.map(Arc::from);
    match array.data_type() {
        DataType::Timestamp(_, found) if *found == zone => array.clone(),
        DataType::Timestamp(unit, _) => match unit {
            TimeUnit::Second => with_zone::<TimestampSecondType>(array, zone),
            TimeUnit::Millisecond => with_zone::<TimestampMillisecondType>(array, zone),
            TimeUnit::Microsecond => with_zone::<TimestampMicrosecondType>(array, zone),
            TimeUnit::Nanosecond => with_zone::<TimestampNanosecondType>(array, zone),
        },
        _ => array.clone(),
    }
}

fn with_zone<T: ArrowTimestampType>(array: &ArrayRef, zone: Option<Arc<str>>) -> ArrayRef {
    Arc::new(array.as_primitive::<T>().clone().with_timezone_opt(zone))
}

/// Returns UTC for zones that are given by name: the binary contains no time zone database.
fn display_zone(data_type: &DataType) -> Option<&'static str> {
    match data_type {
        DataType::Timestamp(_, Some(zone)) if !zone.starts_with(['+', '-']) => Some("+00:00"),
        _ => None,
    }
}

/// Returns the schema of [`displayed`] rows.
pub fn displayed_schema(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| match (field.data_type(), display_zone(field.data_type())) {
            (DataType::Timestamp(unit, _), Some(zone)) => {
                let data_type = DataType::Timestamp(*unit, Some(Arc::from(zone)));
                field.as_ref().clone().with_data_type(data_type)
            }
            _ => field.as_ref().clone(),
        })
        .collect();
    Arc::new(Schema::new(fields))
}

/// Returns the rows with the time zones of their text form.
pub fn displayed(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    if batch.schema().fields().iter().all(|field| display_zone(field.data_type()).is_none()) {
        return Ok(batch.clone());
    }
    let columns = batch
        .columns()
        .iter()
        .map(|column| match display_zone(column.data_type()) {
            Some(zone) => in_zone(column, Some(zone)),
            None => column.clone(),
        })
        .collect();
    RecordBatch::try_new(displayed_schema(&batch.schema()), columns)
}

/// Returns the text of a time, given as a number of units of its column's type.
///
/// # Errors
/// The number is out of the range of the type, or the type is not that of a time.
pub fn time_text(data_type: &DataType, units: i64) -> Result<String, ArrowError> {
    let units: ArrayRef = Arc::new(Int64Array::from(vec![units]));
    // Arrow has no direct cast from 64-bit integers to dates.
    let units = match data_type {
        DataType::Date32 => cast(&units, &DataType::Int32)?,
        _ => units,
    };
    let time = cast(&units, data_type)?;
    let time = match display_zone(data_type) {
        Some(zone) => in_zone(&time, Some(zone)),
        None => time,
    };
    array_value_to_string(&time, 0)
}

#[cfg(test)]
mod tests {
    use arrow::array::TimestampMillisecondArray;

    use super::*;

    #[test]
    fn times_are_displayed_by_the_type_of_their_column() {
        let zone = |name: &str| DataType::Timestamp(TimeUnit::Millisecond, Some(name.into()));
        for (data_type, units, text) in [
            (DataType::Date32, 1, "1970-01-02"),
            (DataType::Timestamp(TimeUnit::Second, None), 60, "1970-01-01T00:01:00"),
            (zone("UTC"), 1_500, "1970-01-01T00:00:01.500Z"),
            (zone("Europe/Berlin"), 0, "1970-01-01T00:00:00Z"),
            (zone("+01:00"), 0, "1970-01-01T01:00:00+01:00"),
            (DataType::Int64, 7, "7"),
        ] {
            assert_eq!(time_text(&data_type, units).unwrap(), text, "{data_type}");
        }
    }

    #[test]
    fn named_zones_are_displayed_in_utc() {
        let array: ArrayRef =
            Arc::new(TimestampMillisecondArray::from(vec![0]).with_timezone("Europe/Berlin"));
        let field = Field::new("at", array.data_type().clone(), false);
        let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![array]).unwrap();
        let shown = displayed(&batch).unwrap();
        assert_eq!(array_value_to_string(shown.column(0), 0).unwrap(), "1970-01-01T00:00:00Z");
        assert_eq!(shown.schema(), displayed_schema(&batch.schema()));
        assert_eq!(
            in_zone(shown.column(0), None).data_type(),
            &DataType::Timestamp(TimeUnit::Millisecond, None)
        );
    }
}
