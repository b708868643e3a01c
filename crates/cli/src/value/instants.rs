//! Timestamps in another zone. The stored numbers are unchanged: an instant is the same in every zone,
//! while a cast between zones would shift it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    ArrowTimestampType, DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use arrow::error::ArrowError;

/// Returns the array as timestamps of the same unit in `zone`; other arrays unchanged.
pub(crate) fn in_zone(array: &ArrayRef, zone: Option<&str>) -> ArrayRef {
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
pub(crate) fn displayed_schema(schema: &SchemaRef) -> SchemaRef {
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
pub(crate) fn displayed(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
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

#[cfg(test)]
mod tests {
    use arrow::array::TimestampMillisecondArray;
    use arrow::util::display::array_value_to_string;

    use super::*;

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
