//! Numbers of the rows of a batch in their file: lines, or rows in formats without lines.

/// A run of rows with consecutive numbers.
#[derive(Debug, Clone, Copy)]
struct NumberRun {
    /// First row of the run in the batch, from 0.
    row: usize,
    /// Number of that row in the file.
    number: u64,
}

/// Numbers of the rows of one batch.
///
/// An error about a row can follow the whole batch: a row that is too large, in every load, or a
/// repeated key. Only breaks in the sequence are kept, so a file without bad rows and without line
/// breaks in its cells has one entry for each batch.
#[derive(Debug, Default)]
pub(crate) struct RowNumbers {
    runs: Vec<NumberRun>,
    rows: usize,
}

impl RowNumbers {
    /// Removes the rows of the previous batch.
    pub(crate) fn clear(&mut self) {
        self.runs.clear();
        self.rows = 0;
    }

    /// Appends a row. Numbers increase.
    pub(crate) fn push(&mut self, number: u64) {
        self.push_run(number, 1);
    }

    /// Appends `rows` rows with consecutive numbers from `first`.
    pub(crate) fn push_run(&mut self, first: u64, rows: usize) {
        let follows = |run: &NumberRun| run.number.checked_add((self.rows - run.row) as u64);
        if self.runs.last().and_then(follows) != Some(first) {
            self.runs.push(NumberRun { row: self.rows, number: first });
        }
        self.rows += rows;
    }

    /// Returns the number of a row of the batch, counted from 0; `None`: there is no such row.
    pub(crate) fn get(&self, row: usize) -> Option<u64> {
        if row >= self.rows {
            return None;
        }
        let after = self.runs.partition_point(|run| run.row <= row);
        let run = self.runs.get(after.checked_sub(1)?)?;
        Some(run.number + (row - run.row) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_numbers_survive_gaps() {
        for (numbers, runs) in [
            (&[][..], 0),
            (&[2], 1),
            (&[2, 3, 4], 1),
            (&[2, 4, 5, 9], 3),
            (&[7, 9, 11], 3),
            (&[u64::MAX - 1, u64::MAX], 1),
        ] {
            let mut found = RowNumbers::default();
            numbers.iter().for_each(|number| found.push(*number));
            let read: Vec<u64> = (0..numbers.len()).filter_map(|row| found.get(row)).collect();
            assert_eq!((read.as_slice(), found.runs.len()), (numbers, runs));
            assert_eq!(found.get(numbers.len()), None);
        }
    }

    #[test]
    fn row_numbers_start_again_with_each_batch() {
        let mut found = RowNumbers::default();
        found.push_run(1, 1_000);
        found.push_run(1_001, 5);
        assert_eq!((found.get(1_004), found.runs.len()), (Some(1_005), 1));
        found.clear();
        found.push(1_006);
        assert_eq!((found.get(0), found.get(1)), (Some(1_006), None));
    }
}
