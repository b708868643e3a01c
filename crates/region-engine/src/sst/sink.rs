//! Output of the Parquet encoder: computes checksums block by block and passes the bytes on in
//! parts, so that no file is ever in memory as a whole.

use std::io::{self, Write};

use bytes::{Bytes, BytesMut};

use super::blocks::BlockChecksums;

/// Bytes of a part.
const PART_BYTES: usize = 4 << 20;

/// Receiver of the parts of a file. May block.
pub(crate) trait PartReceiver: Send {
    /// Accepts the next bytes of the file.
    fn part(&mut self, bytes: Bytes) -> io::Result<()>;
}

/// Writer that splits a file into parts.
#[derive(Debug)]
pub(crate) struct PartSink<R> {
    /// `None` after the file has ended.
    receiver: Option<R>,
    part: BytesMut,
    written: u64,
    blocks: BlockChecksums,
    /// crc32c of the bytes after the data, once the data has ended.
    tail: Option<u32>,
    checksum: u32,
}

impl<R: PartReceiver> PartSink<R> {
    pub(crate) fn new(receiver: R) -> Self {
        Self {
            receiver: Some(receiver),
            part: BytesMut::new(),
            written: 0,
            blocks: BlockChecksums::default(),
            tail: None,
            checksum: 0,
        }
    }

    /// Bytes written so far.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Ends the data and returns its checksums; page indexes and footer follow.
    pub(crate) fn end_data(&mut self) -> Vec<u32> {
        self.tail = Some(0);
        std::mem::take(&mut self.blocks).finish()
    }

    /// crc32c of page indexes and footer.
    pub(crate) fn tail_checksum(&self) -> u32 {
        self.tail.unwrap_or(0)
    }

    /// crc32c of all bytes.
    pub(crate) fn checksum(&self) -> u32 {
        self.checksum
    }

    /// Passes on the last part and returns the receiver.
    pub(crate) fn finish(&mut self) -> io::Result<R> {
        let mut receiver = self.receiver.take().ok_or_else(ended)?;
        if !self.part.is_empty() {
            receiver.part(self.part.split().freeze())?;
        }
        Ok(receiver)
    }
}

impl<R: PartReceiver> Write for PartSink<R> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tail {
            None => self.blocks.update(bytes),
            Some(tail) => *tail = crc32c::crc32c_append(*tail, bytes),
        }
        self.checksum = crc32c::crc32c_append(self.checksum, bytes);
        self.written += bytes.len() as u64;
        self.part.extend_from_slice(bytes);
        if self.part.len() >= PART_BYTES {
            let receiver = self.receiver.as_mut().ok_or_else(ended)?;
            receiver.part(self.part.split().freeze())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn ended() -> io::Error {
    io::Error::other("the file has ended")
}
