//! One sorted run of a job's inputs as a source of the merge.

use std::collections::VecDeque;

use crate::EngineError;
use crate::read::shape::Piece;
use crate::sst::source::FileSource;

/// A sequence of files in key order without overlap: at most one is open.
#[derive(Debug)]
pub(crate) struct FileChain {
    files: VecDeque<ChainFile>,
}

/// A file of a chain.
#[derive(Debug)]
pub(crate) struct ChainFile {
    pub(crate) source: FileSource,
    /// No key occurs twice in the file.
    pub(crate) unique: bool,
    /// Bytes of the file per row.
    pub(crate) row_bytes: u64,
}

/// Rows with facts about their file.
#[derive(Debug)]
pub(crate) struct ChainPiece {
    pub(crate) piece: Piece,
    pub(crate) unique: bool,
    pub(crate) bytes: u64,
}

impl FileChain {
    pub(crate) fn new(files: VecDeque<ChainFile>) -> Self {
        Self { files }
    }

    /// Returns the next rows; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<ChainPiece>, EngineError> {
        while let Some(link) = self.files.front_mut() {
            if let Some(piece) = link.source.next().await? {
                let bytes = link.row_bytes.saturating_mul(piece.rows.rows() as u64);
                return Ok(Some(ChainPiece { piece, unique: link.unique, bytes }));
            }
            self.files.pop_front();
        }
        Ok(None)
    }
}
