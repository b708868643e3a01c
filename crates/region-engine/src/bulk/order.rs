//! Checks order, keys and bounds of the rows of a file, piece by piece.

use std::sync::Arc;

use arrow::row::OwnedRow;
use tidewater_common::keys::{KeyError, KeyRange};
use tidewater_common::schema::WriteMode;

use super::error::Unfit;
use crate::EngineError;
use crate::file_meta::TimeRange;
use crate::read::shape::{Piece, TableShape};
use crate::row_versions::Ops;
use crate::sst::writer::{time_bounds, widen};
use crate::storage::StorageError;

/// Checks the rows of a file and collects their bounds.
pub(super) struct RowChecker {
    shape: Arc<TableShape>,
    range: KeyRange,
    /// Remaining rows of the file's key index: number and key.
    indexed: std::vec::IntoIter<(u64, Vec<u8>)>,
    next_indexed: Option<(u64, Vec<u8>)>,
    last: Option<OwnedRow>,
    pub(super) rows: u64,
    pub(super) keys: Option<(Vec<u8>, Vec<u8>)>,
    pub(super) time: Option<TimeRange>,
    pub(super) sequences: Option<(u64, u64)>,
    pub(super) epochs: Option<(u64, u64)>,
}

/// Problem with a file, or an error that prevented its inspection.
pub(super) enum InspectError {
    Unfit(Unfit),
    Engine(EngineError),
}

impl From<EngineError> for InspectError {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl From<StorageError> for InspectError {
    fn from(error: StorageError) -> Self {
        Self::Engine(error.into())
    }
}

impl From<KeyError> for InspectError {
    fn from(error: KeyError) -> Self {
        Self::Engine(error.into())
    }
}

impl RowChecker {
    /// Creates a checker. `indexed`: the rows of the file's key index, ascending.
    pub(super) fn new(
        shape: Arc<TableShape>,
        range: KeyRange,
        indexed: Vec<(u64, Vec<u8>)>,
    ) -> Self {
        let mut indexed = indexed.into_iter();
        let next_indexed = indexed.next();
        Self {
            shape,
            range,
            indexed,
            next_indexed,
            last: None,
            rows: 0,
            keys: None,
            time: None,
            sequences: None,
            epochs: None,
        }
    }

    /// Checks the next rows.
    pub(super) fn push(&mut self, piece: &Piece) -> Result<(), InspectError> {
        let count = piece.rows.rows();
        if count == 0 {
            return Ok(());
        }
        let stamps = piece.rows.stamps();
        if let Ops::Each(codes) = &stamps.ops
            && codes.values().iter().any(|code| *code != 0)
        {
            return Err(InspectError::Unfit(Unfit::Deletes));
        }
        self.check_order(piece)?;
        let codec = &self.shape.codec;
        let low = codec.row_key(&piece.keys, 0)?;
        let high = codec.row_key(&piece.keys, count - 1)?;
        if !self.range.contains(&low) || !self.range.contains(&high) {
            return Err(InspectError::Unfit(Unfit::Range));
        }
        self.check_index(piece)?;
        self.keys = Some(match self.keys.take() {
            Some((least, _)) => (least, high),
            None => (low, high),
        });
        if let Some(times) = time_bounds(&piece.rows, &self.shape.schema)? {
            self.time = Some(times.and(self.time));
        }
        widen(&mut self.sequences, stamps.sequences.bounds(count));
        widen(&mut self.epochs, stamps.epochs.bounds(count));
        self.rows += count as u64;
        Ok(())
    }

    /// Checks the key order. An upsert table has each key once; otherwise equal keys may be
    /// adjacent.
    fn check_order(&mut self, piece: &Piece) -> Result<(), InspectError> {
        let rows = self.shape.codec.comparable(&piece.keys)?;
        let strictly = self.shape.mode() == WriteMode::Upsert;
        let follows = |before: arrow::row::Row<'_>, row: arrow::row::Row<'_>| {
            if strictly { before < row } else { before <= row }
        };
        let first = self.last.as_ref().is_none_or(|last| follows(last.row(), rows.row(0)));
        let out_of_order = if first {
            (1..rows.num_rows()).find(|row| !follows(rows.row(row - 1), rows.row(*row)))
        } else {
            Some(0)
        };
        if let Some(row) = out_of_order {
            return Err(InspectError::Unfit(Unfit::Order { row: self.rows + row as u64 }));
        }
        self.last = Some(rows.row(rows.num_rows() - 1).owned());
        Ok(())
    }

    /// Checks the key index against the rows: reads skip pages by it.
    fn check_index(&mut self, piece: &Piece) -> Result<(), InspectError> {
        while let Some((row, expected)) = &self.next_indexed {
            let Some(at) = row.checked_sub(self.rows).and_then(|at| usize::try_from(at).ok())
            else {
                break;
            };
            if at >= piece.rows.rows() {
                break;
            }
            if self.shape.codec.row_key(&piece.keys, at)? != *expected {
                let detail = format!("its key index has a wrong key for row {row}");
                return Err(InspectError::Unfit(Unfit::Damaged(detail)));
            }
            self.next_indexed = self.indexed.next();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, UInt8Array};
    use tidewater_common::ids::ColumnId;
    use tidewater_common::schema::TableOptions;

    use super::*;
    use crate::manifest::samples::schema;
    use crate::row_versions::{Numbers, RowOp, RowVersions, Stamps};

    fn piece(keys: &[i64], sequence: u64, ops: Ops) -> Piece {
        let array: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
        let stamps =
            Stamps { sequences: Numbers::All(sequence), epochs: Numbers::All(sequence + 1), ops };
        let ids = [ColumnId(1)].into();
        let rows = RowVersions::new(ids, vec![array.clone()], keys.len(), stamps);
        Piece { rows, keys: vec![array] }
    }

    fn puts(keys: &[i64]) -> Piece {
        piece(keys, 4, Ops::All(RowOp::Put))
    }

    fn key(value: i64) -> Vec<u8> {
        let array: ArrayRef = Arc::new(Int64Array::from(vec![value]));
        shape().codec.row_key(&[array], 0).unwrap()
    }

    fn shape() -> Arc<TableShape> {
        Arc::new(TableShape::new(schema(1), TableOptions::upsert()).unwrap())
    }

    fn order(indexed: &[(u64, i64)]) -> RowChecker {
        let indexed = indexed.iter().map(|(row, value)| (*row, key(*value))).collect();
        RowChecker::new(shape(), KeyRange::new(key(0), Some(key(100))), indexed)
    }

    fn unfit(result: Result<(), InspectError>) -> Unfit {
        match result {
            Err(InspectError::Unfit(unfit)) => unfit,
            Err(InspectError::Engine(error)) => panic!("{error}"),
            Ok(()) => panic!("the rows were accepted"),
        }
    }

    #[test]
    fn row_checker_collects_bounds_over_pieces() {
        let mut order = order(&[(0, 1), (3, 7)]);
        assert!(order.push(&puts(&[1, 2])).is_ok());
        assert!(order.push(&puts(&[])).is_ok());
        assert!(order.push(&piece(&[3, 7, 99], 9, Ops::All(RowOp::Put))).is_ok());
        assert_eq!((order.rows, order.keys), (5, Some((key(1), key(99)))));
        assert_eq!((order.sequences, order.epochs), (Some((4, 9)), Some((5, 10))));
    }

    #[test]
    fn row_checker_rejects_invalid_rows_within_and_between_pieces() {
        assert_eq!(unfit(order(&[]).push(&puts(&[1, 3, 2]))), Unfit::Order { row: 2 });
        let mut between = order(&[]);
        assert!(between.push(&puts(&[1, 3])).is_ok());
        assert_eq!(unfit(between.push(&puts(&[3, 4]))), Unfit::Order { row: 2 });
        assert_eq!(unfit(order(&[]).push(&puts(&[-1, 3]))), Unfit::Range);
        assert_eq!(unfit(order(&[]).push(&puts(&[1, 100]))), Unfit::Range);
        let deletes = piece(&[1, 2], 4, Ops::Each(UInt8Array::from(vec![0, 1])));
        assert_eq!(unfit(order(&[]).push(&deletes)), Unfit::Deletes);
        for wrong_index in [[(0, 2), (3, 7)], [(0, 1), (3, 8)]] {
            let mut order = order(&wrong_index);
            let pushed = order.push(&puts(&[1, 2])).and_then(|()| order.push(&puts(&[3, 7])));
            assert!(matches!(unfit(pushed), Unfit::Damaged(_)), "{wrong_index:?}");
        }
    }
}
