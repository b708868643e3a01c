//! What the rows of a file add up to: order, keys, bounds. Fed piece by piece.

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

/// See the module's head.
pub(super) struct Order {
    shape: Arc<TableShape>,
    range: KeyRange,
    /// Rows whose keys the file's index names, by number, with those keys; what is still to come.
    indexed: std::vec::IntoIter<(u64, Vec<u8>)>,
    next_indexed: Option<(u64, Vec<u8>)>,
    last: Option<OwnedRow>,
    pub(super) rows: u64,
    pub(super) keys: Option<(Vec<u8>, Vec<u8>)>,
    pub(super) time: Option<TimeRange>,
    pub(super) sequences: Option<(u64, u64)>,
    pub(super) epochs: Option<(u64, u64)>,
}

/// What is wrong with the rows of a file.
pub(super) enum Wrong {
    Unfit(Unfit),
    Engine(EngineError),
}

impl From<EngineError> for Wrong {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl From<StorageError> for Wrong {
    fn from(error: StorageError) -> Self {
        Self::Engine(error.into())
    }
}

impl From<KeyError> for Wrong {
    fn from(error: KeyError) -> Self {
        Self::Engine(error.into())
    }
}

impl Order {
    /// `indexed`: what the file's key index says, ascending by row.
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

    /// Takes the next rows.
    pub(super) fn push(&mut self, piece: &Piece) -> Result<(), Wrong> {
        let count = piece.rows.rows();
        if count == 0 {
            return Ok(());
        }
        let stamps = piece.rows.stamps();
        if let Ops::Each(codes) = &stamps.ops
            && codes.values().iter().any(|code| *code != 0)
        {
            return Err(Wrong::Unfit(Unfit::Deletes));
        }
        self.ascending(piece)?;
        let codec = &self.shape.codec;
        let (low, high) = (codec.row_key(&piece.keys, 0)?, codec.row_key(&piece.keys, count - 1)?);
        if !self.range.contains(&low) || !self.range.contains(&high) {
            return Err(Wrong::Unfit(Unfit::Range));
        }
        self.index(piece)?;
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

    /// An upsert table has each key once; otherwise equal keys may follow each other.
    fn ascending(&mut self, piece: &Piece) -> Result<(), Wrong> {
        let rows = self.shape.codec.comparable(&piece.keys)?;
        let strictly = self.shape.mode() == WriteMode::Upsert;
        let follows = |before: arrow::row::Row<'_>, row: arrow::row::Row<'_>| match strictly {
            true => before < row,
            false => before <= row,
        };
        let first = self.last.as_ref().is_none_or(|last| follows(last.row(), rows.row(0)));
        let out_of_order = match first {
            false => Some(0),
            true => (1..rows.num_rows()).find(|row| !follows(rows.row(row - 1), rows.row(*row))),
        };
        if let Some(row) = out_of_order {
            return Err(Wrong::Unfit(Unfit::Order { row: self.rows + row as u64 }));
        }
        self.last = Some(rows.row(rows.num_rows() - 1).owned());
        Ok(())
    }

    /// The key index must name the keys that are there: reads skip pages by it.
    fn index(&mut self, piece: &Piece) -> Result<(), Wrong> {
        while let Some((row, expected)) = &self.next_indexed {
            let Some(at) = row.checked_sub(self.rows).and_then(|at| usize::try_from(at).ok())
            else {
                break;
            };
            if at >= piece.rows.rows() {
                break;
            }
            if self.shape.codec.row_key(&piece.keys, at)? != *expected {
                let detail = format!("its key index does not name the key of row {row}");
                return Err(Wrong::Unfit(Unfit::Damaged(detail)));
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

    fn order(indexed: &[(u64, i64)]) -> Order {
        let indexed = indexed.iter().map(|(row, value)| (*row, key(*value))).collect();
        Order::new(shape(), KeyRange::new(key(0), Some(key(100))), indexed)
    }

    fn unfit(result: Result<(), Wrong>) -> Unfit {
        match result {
            Err(Wrong::Unfit(unfit)) => unfit,
            Err(Wrong::Engine(error)) => panic!("{error}"),
            Ok(()) => panic!("it was taken"),
        }
    }

    #[test]
    fn pieces_add_up() {
        let mut order = order(&[(0, 1), (3, 7)]);
        assert!(order.push(&puts(&[1, 2])).is_ok());
        assert!(order.push(&puts(&[])).is_ok());
        assert!(order.push(&piece(&[3, 7, 99], 9, Ops::All(RowOp::Put))).is_ok());
        assert_eq!((order.rows, order.keys), (5, Some((key(1), key(99)))));
        assert_eq!((order.sequences, order.epochs), (Some((4, 9)), Some((5, 10))));
    }

    #[test]
    fn what_does_not_fit_is_found_in_a_piece_and_between_two() {
        assert_eq!(unfit(order(&[]).push(&puts(&[1, 3, 2]))), Unfit::Order { row: 2 });
        let mut between = order(&[]);
        assert!(between.push(&puts(&[1, 3])).is_ok());
        assert_eq!(unfit(between.push(&puts(&[3, 4]))), Unfit::Order { row: 2 });
        assert_eq!(unfit(order(&[]).push(&puts(&[-1, 3]))), Unfit::Range);
        assert_eq!(unfit(order(&[]).push(&puts(&[1, 100]))), Unfit::Range);
        let deletes = piece(&[1, 2], 4, Ops::Each(UInt8Array::from(vec![0, 1])));
        assert_eq!(unfit(order(&[]).push(&deletes)), Unfit::Deletes);
        for lies in [[(0, 2), (3, 7)], [(0, 1), (3, 8)]] {
            let mut order = order(&lies);
            let pushed = order.push(&puts(&[1, 2])).and_then(|()| order.push(&puts(&[3, 7])));
            assert!(matches!(unfit(pushed), Unfit::Damaged(_)), "{lies:?}");
        }
    }
}
