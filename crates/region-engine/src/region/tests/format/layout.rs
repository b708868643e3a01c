//! Layout of data files, as other Parquet readers see it (includes S5).

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{UInt8Type, UInt64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, Encoding};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::WriteMode;

use crate::file_meta::FileMeta;
use crate::region::tests::fixture::*;
use crate::sst::format::PAGE_ROWS;
use crate::storage::Storage;

async fn flushed(mode: WriteMode, hashed: bool) -> RegionFixture {
    let mut fixture = RegionFixture::new(Storage::memory(), mode, hashed).await;
    for round in 0..6 {
        let rows: Vec<Row> = (0..60)
            .map(|n| {
                let key = (format!("name {}", n % 7), (n * 37 + round) % 50);
                (key, Some(i64::from(n)), format!("{round}"))
            })
            .collect();
        fixture.put(&rows);
        if mode == WriteMode::Upsert {
            fixture.delete(&[("name 1".to_owned(), round), ("none".to_owned(), 1)]);
        }
        if round % 3 == 2 {
            fixture.region.flush().await.unwrap();
        }
    }
    fixture
}

async fn whole(fixture: &RegionFixture, file: &FileMeta) -> (ParquetMetaData, RecordBatch) {
    let bytes = fixture.storage.get(&file.path()).await.unwrap();
    assert_eq!(bytes.len() as u64, file.size);
    assert_eq!(crc32c::crc32c(&bytes), file.checksum);
    let mut reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Required);
    reader.try_parse(&bytes).unwrap();
    let metadata = reader.finish().unwrap();
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
    let schema = builder.schema().clone();
    let batches: Vec<RecordBatch> = builder.build().unwrap().map(Result::unwrap).collect();
    (metadata, arrow::compute::concat_batches(&schema, &batches).unwrap())
}

#[tokio::test]
async fn files_are_sorted_by_key_and_match_their_metadata() {
    for (mode, hashed) in
        [(WriteMode::Upsert, false), (WriteMode::Upsert, true), (WriteMode::AppendOnly, false)]
    {
        let fixture = flushed(mode, hashed).await;
        let files = fixture.region.files();
        assert!(files.len() > 2, "the target size cuts a flush into several files");
        for file in files {
            let (_, rows) = whole(&fixture, &file).await;
            let keys = codec(&fixture.spec)
                .row_keys(&[
                    rows.column_by_name("name").unwrap().clone(),
                    rows.column_by_name("number").unwrap().clone(),
                ])
                .unwrap();
            let sequences = rows.column_by_name("_tw_seq").unwrap().as_primitive::<UInt64Type>();
            let ops = rows.column_by_name("_tw_op").unwrap().as_primitive::<UInt8Type>();
            for row in 1..rows.num_rows() {
                let order = keys[row - 1].cmp(&keys[row]);
                match mode {
                    WriteMode::Upsert => assert!(order.is_lt()),
                    WriteMode::AppendOnly => assert!(
                        order.is_lt()
                            || order.is_eq() && sequences.value(row - 1) >= sequences.value(row)
                    ),
                }
            }
            assert_eq!(file.rows, rows.num_rows() as u64);
            assert_eq!((&file.min_key, &file.max_key), (&keys[0], keys.last().unwrap()));
            let values = sequences.values();
            assert_eq!(file.stored_min_sequence.get(), *values.iter().min().unwrap());
            assert_eq!(file.stored_max_sequence.get(), *values.iter().max().unwrap());
            assert_eq!(file.deletes, ops.values().iter().filter(|op| **op == 1).count() as u64);
            assert_eq!(file.one_version_per_key, mode == WriteMode::Upsert);
            assert_eq!(file.clip, KeyRange::whole());
            assert_eq!(file.level, 0);
        }
    }
}

#[tokio::test]
async fn parquet_metadata_has_field_ids_order_and_indexes() {
    for hashed in [false, true] {
        let fixture = flushed(WriteMode::Upsert, hashed).await;
        let file = &fixture.region.files()[0];
        let (metadata, _) = whole(&fixture, file).await;
        let columns = metadata.file_metadata().schema_descr().columns().to_vec();
        let ids: Vec<(String, i32)> = columns
            .iter()
            .map(|c| (c.name().to_owned(), c.self_type().get_basic_info().id()))
            .collect();
        let expected = [
            ("value", 3),
            ("name", 1),
            ("number", 2),
            ("note", 4),
            ("_tw_seq", 2_147_483_401),
            ("_tw_epoch", 2_147_483_402),
            ("_tw_op", 2_147_483_403),
        ];
        assert_eq!(ids, expected.map(|(name, id)| (name.to_owned(), id)));
        assert_eq!(file.row_groups as usize, metadata.num_row_groups());
        for group in metadata.row_groups() {
            let sorting = group.sorting_columns().cloned().unwrap_or_default();
            let order: Vec<(i32, bool)> =
                sorting.iter().map(|column| (column.column_idx, column.descending)).collect();
            // Hashed tables sort by vnode first, so the file is not sorted by any column.
            let expected = if hashed { vec![] } else { vec![(1, false), (2, false), (4, true)] };
            assert_eq!(order, expected);
            for chunk in group.columns() {
                assert!(matches!(chunk.compression(), Compression::ZSTD(_)));
            }
        }
        assert!(metadata.column_index().is_some());
        let pages = &metadata.offset_index().unwrap()[0];
        for chunk in pages {
            let starts: Vec<i64> =
                chunk.page_locations().iter().map(|page| page.first_row_index).collect();
            // A page ends with the batch that fills it.
            let most = 2 * PAGE_ROWS as i64;
            assert!(starts.windows(2).all(|pair| pair[1] - pair[0] <= most), "{starts:?}");
        }
        let value = metadata.row_group(0).column(0);
        assert!(value.encodings().all(|encoding| encoding != Encoding::RLE_DICTIONARY));
    }
}

#[tokio::test]
async fn columns_are_found_by_id_under_later_schema() {
    use tidewater_common::ids::{ColumnId, SchemaVersion, Sequence};
    use tidewater_common::schema::{ColumnType, TableSchema};

    let fixture = flushed(WriteMode::Upsert, false).await;
    // `value` is dropped and added again under its old name; `note` is renamed.
    let columns = vec![
        column(NAME, "name", ColumnType::Utf8, false),
        column(NUMBER, "number", ColumnType::Int32, false),
        column(NOTE, "remark", ColumnType::Utf8, false),
        column(ColumnId(5), "value", ColumnType::Int64, true),
    ];
    let schema =
        TableSchema::new(SchemaVersion(2), columns, vec![NAME, NUMBER], None, ColumnId(6)).unwrap();
    let spec = crate::RegionSpec { schema, ..fixture.spec.clone() };
    let region =
        crate::Region::new(env(fixture.storage.clone()), spec, Sequence(0), Sequence(0)).unwrap();
    region.load().await.unwrap();
    let options = crate::ScanOptions::all(vec![NOTE, ColumnId(5)]);
    let batches: Vec<RecordBatch> =
        futures::TryStreamExt::try_collect(region.scan(&options).unwrap()).await.unwrap();
    let notes: Vec<String> = batches
        .iter()
        .flat_map(|batch| batch.column(0).as_string::<i32>().iter().flatten().map(str::to_owned))
        .collect();
    let expected: Vec<String> = fixture.expected_rows().into_iter().map(|row| row.2).collect();
    assert_eq!(notes, expected);
    assert!(batches.iter().all(|batch| batch.column(1).null_count() == batch.num_rows()));
    let dropped = crate::ScanOptions::all(vec![VALUE]);
    assert!(matches!(region.scan(&dropped).err(), Some(crate::EngineError::BadRows { .. })));
    let _ = Arc::new(region);
}
