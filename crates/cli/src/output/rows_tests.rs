use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;

/// Writer into a shared buffer.
#[derive(Clone, Default)]
struct SharedBuffer(Arc<Mutex<Vec<u8>>>);

impl Write for SharedBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("name", DataType::Utf8, true),
        Field::new("count", DataType::Int64, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true),
    ]))
}

fn batch() -> RecordBatch {
    let names: ArrayRef = Arc::new(StringArray::from(vec![Some("a,b"), None]));
    let counts: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), None]));
    let times: ArrayRef = Arc::new(
        TimestampMillisecondArray::from(vec![Some(1_357_034_400_000), None]).with_timezone("UTC"),
    );
    RecordBatch::try_new(schema(), vec![names, counts, times]).unwrap()
}

fn written(format: RowFormat, batches: &[RecordBatch]) -> Vec<u8> {
    let buffer = SharedBuffer::default();
    let out = Box::new(buffer.clone());
    let mut writer = RowWriter::new(format, "the output".into(), out, &schema()).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.finish().unwrap();
    buffer.0.lock().clone()
}

fn text(format: RowFormat, batches: &[RecordBatch]) -> String {
    String::from_utf8(written(format, batches)).unwrap()
}

#[test]
fn json_rows_are_one_object_per_line() {
    assert_eq!(
        text(RowFormat::Json, &[batch()]),
        "{\"name\":\"a,b\",\"count\":7,\"at\":\"2013-01-01T10:00:00Z\"}\n\
         {\"name\":null,\"count\":null,\"at\":null}\n"
    );
    assert_eq!(text(RowFormat::Json, &[]), "");
}

#[test]
fn csv_header_is_written_once() {
    assert_eq!(
        text(RowFormat::Csv, &[batch(), batch()]),
        "name,count,at\n\"a,b\",7,2013-01-01T10:00:00Z\n,,\n\"a,b\",7,2013-01-01T10:00:00Z\n,,\n"
    );
    assert_eq!(text(RowFormat::Csv, &[]), "name,count,at\n");
}

#[test]
fn table_format_ends_with_the_row_count() {
    let shown = text(RowFormat::Table, &[batch()]);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 5, "{shown}");
    assert_eq!(lines[0], "name  count  at");
    assert_eq!(lines[2], "a,b       7  2013-01-01T10:00:00Z");
    assert_eq!(lines[4], "(2 rows)");
    assert!(text(RowFormat::Table, &[]).ends_with("(0 rows)\n"));
}

#[test]
fn parquet_rows_survive_a_round_trip() {
    let bytes = bytes::Bytes::from(written(RowFormat::Parquet, &[batch()]));
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
    let read: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    assert_eq!(read[0].columns(), batch().columns());
}
