//! Look-up of events in their table (pure).

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray, TimestampNanosecondArray,
};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use tidewater_events::RecordedEvent;
use uuid::Uuid;

use crate::table::ID;

/// Returns the keys of events. `schema`: the key columns of their table.
pub(crate) fn keys(
    schema: SchemaRef,
    events: &[&RecordedEvent],
) -> Result<RecordBatch, ArrowError> {
    let types = events.iter().map(|event| event.event_type.as_str());
    let times = events.iter().map(|event| event.timestamp_ns);
    let ids = events.iter().map(|event| event.id.into_bytes());
    // In the order of the key.
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(types)),
        Arc::new(TimestampNanosecondArray::from_iter_values(times).with_timezone("UTC")),
        Arc::new(BinaryArray::from_iter_values(ids)),
    ];
    RecordBatch::try_new(schema, columns)
}

/// Returns the ids of rows. Those that are no ids are of no event.
pub(crate) fn ids(rows: &RecordBatch) -> BTreeSet<Uuid> {
    let ids = rows.column_by_name(ID).and_then(|ids| ids.as_binary_opt::<i32>());
    let ids = ids.into_iter().flat_map(|ids| ids.iter().flatten());
    ids.filter_map(|id| Uuid::from_slice(id).ok()).collect()
}

#[cfg(test)]
mod tests {
    use tidewater_common::keys::KeyCodec;

    use super::*;
    use crate::rows::{record_batch, requests};
    use crate::testing::{event, events_table, table_options};

    #[test]
    fn keys_of_events_are_those_of_their_rows() {
        let table = events_table(&[]);
        let events = [event(3, "a", vec![]), event(1, "b", vec![]), event(2, "b", vec![])];
        let events: Vec<_> = events.iter().collect();
        let keys = keys(table.key_arrow(), &events).unwrap();
        let rows = record_batch(&table, &requests(&events).unwrap()).unwrap();
        let codec = KeyCodec::new(&table, &table_options()).unwrap();
        assert_eq!(
            codec.row_keys(keys.columns()).unwrap(),
            codec.row_keys(&codec.key_columns(&rows)).unwrap()
        );
        let expected = [1, 2, 3].map(Uuid::from_u128);
        assert!(ids(&rows).into_iter().eq(expected));
        assert!(ids(&rows.project(&[1]).unwrap()).is_empty());
    }
}
