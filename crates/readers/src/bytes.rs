//! Opens an input: decompression, checksums, count of bytes read.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::Crc;
use flate2::read::{DeflateDecoder, MultiGzDecoder};

use super::error::LoadError;
use super::input::{Compression, Input};

const BUFFER: usize = 256 * 1024;

/// Decompressed bytes of an input.
pub type ByteReader = Box<dyn BufRead + Send>;

/// Opens an input. Adds the bytes read from disk to `read`.
pub fn open(input: &Input, read: &Arc<AtomicU64>) -> Result<ByteReader, LoadError> {
    let failed = |source| read_error(input, source);
    let mut file = File::open(&input.path).map_err(failed)?;
    let counted = |file| CountingReader { inner: file, read: Arc::clone(read) };
    Ok(match input.compression {
        Compression::Plain => Box::new(BufReader::with_capacity(BUFFER, counted(file))),
        Compression::Gzip => {
            let packed = BufReader::with_capacity(BUFFER, counted(file));
            Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(packed)))
        }
        Compression::Zip { start, length, deflated, crc } => {
            file.seek(SeekFrom::Start(start)).map_err(failed)?;
            let packed = BufReader::with_capacity(BUFFER, counted(file).take(length));
            let unpacked: Box<dyn Read + Send> =
                if deflated { Box::new(DeflateDecoder::new(packed)) } else { Box::new(packed) };
            let checked = ChecksumReader { inner: unpacked, seen: Crc::new(), expected: crc };
            Box::new(BufReader::with_capacity(BUFFER, checked))
        }
    })
}

/// Returns the load error of a failed read: damaged compression, or an error of the disk.
pub fn read_error(input: &Input, source: io::Error) -> LoadError {
    let file = input.name.clone();
    let damaged = matches!(
        source.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof
    );
    if damaged && input.compression != Compression::Plain {
        return LoadError::BadCompression { file, reason: source.to_string() };
    }
    LoadError::Read { file, source }
}

/// Reader that counts bytes.
struct CountingReader<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.read.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

/// Reader that verifies the checksum at the end: deflate alone does not detect damage in a text.
struct ChecksumReader<R> {
    inner: R,
    seen: Crc,
    expected: u32,
}

impl<R: Read> Read for ChecksumReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.seen.update(&buffer[..length]);
        if length == 0 && !buffer.is_empty() && self.seen.sum() != self.expected {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "checksum mismatch"));
        }
        Ok(length)
    }
}
