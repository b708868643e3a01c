//! Decoder of PostgreSQL's binary `COPY` format (pure).
//!
//! - **Row**: a count of fields (16 bits), and for each field a length (32 bits, -1 for null) and its bytes.
//! - **Chunk**: bytes as the server sends them. A server sends one row in each chunk, but the protocol does not
//!   promise it: a row may begin and end within any chunk.

use super::transport::MAX_MESSAGE_BYTES;

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
/// Signature, flags and length of the extension.
const HEADER_BYTES: usize = 19;
/// Flags of the upper half change the format; of the known ones, object ids precede the fields.
const CRITICAL_FLAGS: u32 = 0xffff_0000;

/// Damage of the sent rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CopyError {
    #[error("the signature of the binary format is missing")]
    BadSignature,
    #[error("the flags {0:#x} of the binary format are unknown")]
    UnknownFlags(u32),
    #[error("a row has {found} fields instead of {expected}")]
    FieldCount { expected: usize, found: i16 },
    #[error("a field has the invalid length {0}")]
    FieldLength(i32),
    #[error("a row has more than {MAX_MESSAGE_BYTES} bytes")]
    RowTooLarge,
    #[error("bytes follow the last row")]
    BytesAfterEnd,
    #[error("the rows end early")]
    Truncated,
}

/// Position of a field within the bytes of its row: begin and length; `None` for null.
type Span = Option<(u32, u32)>;

/// One row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    bytes: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Row<'a> {
    /// Returns the bytes of a field; `None` for null.
    pub(super) fn field(&self, index: usize) -> Option<&'a [u8]> {
        let (begin, length) = (*self.spans.get(index)?)?;
        self.bytes.get(begin as usize..(begin + length) as usize)
    }

    /// Number of bytes of the row.
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    Rows,
    End,
}

/// Decoder of one stream of rows.
#[derive(Debug)]
pub(super) struct CopyDecoder {
    state: State,
    fields: usize,
    /// Begin of a row whose end is in a later chunk.
    rest: Vec<u8>,
    /// Positions of the fields of the current row, kept for their allocation.
    spans: Vec<Span>,
}

impl CopyDecoder {
    /// Creates the decoder of rows with this number of fields.
    pub(super) fn new(fields: usize) -> Self {
        Self { state: State::Header, fields, rest: Vec::new(), spans: Vec::with_capacity(fields) }
    }

    /// Calls `take_row` for each row that ends in this chunk.
    ///
    /// # Errors
    /// [`CopyError`], or the first error of `take_row`. The decoder must not be used afterwards.
    pub(super) fn decode<E: From<CopyError>>(
        &mut self,
        chunk: &[u8],
        mut take_row: impl FnMut(Row<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.rest.is_empty() {
            let consumed = self.decode_input(chunk, &mut take_row)?;
            self.rest.extend_from_slice(&chunk[consumed..]);
        } else {
            let mut input = std::mem::take(&mut self.rest);
            input.extend_from_slice(chunk);
            let consumed = self.decode_input(&input, &mut take_row)?;
            input.drain(..consumed);
            self.rest = input;
        }
        if self.rest.len() > MAX_MESSAGE_BYTES {
            return Err(CopyError::RowTooLarge.into());
        }
        Ok(())
    }

    /// Checks that the last row was received.
    ///
    /// # Errors
    /// [`CopyError::Truncated`].
    pub(super) fn finish(&self) -> Result<(), CopyError> {
        if self.state == State::End { Ok(()) } else { Err(CopyError::Truncated) }
    }

    /// Returns the number of bytes before the first incomplete row.
    fn decode_input<E: From<CopyError>>(
        &mut self,
        input: &[u8],
        take_row: &mut impl FnMut(Row<'_>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let mut at = 0;
        loop {
            let bytes = &input[at..];
            let found = match self.state {
                State::Header => header_length(bytes)?,
                State::Rows => self.find_row(bytes)?,
                State::End if bytes.is_empty() => return Ok(at),
                State::End => return Err(CopyError::BytesAfterEnd.into()),
            };
            let Some(length) = found else { return Ok(at) };
            match self.state {
                State::Header => self.state = State::Rows,
                State::Rows => take_row(Row { bytes: &bytes[..length], spans: &self.spans })?,
                State::End => {}
            }
            at += length;
        }
    }

    /// Finds the fields of the first row, and returns its length; `None` if it is incomplete.
    fn find_row(&mut self, bytes: &[u8]) -> Result<Option<usize>, CopyError> {
        let Some((count, _)) = bytes.split_first_chunk() else { return Ok(None) };
        let count = i16::from_be_bytes(*count);
        if count == -1 {
            self.state = State::End;
            return Ok(Some(2));
        }
        if usize::try_from(count) != Ok(self.fields) {
            return Err(CopyError::FieldCount { expected: self.fields, found: count });
        }
        self.spans.clear();
        let mut at = 2_usize;
        for _ in 0..self.fields {
            let Some((length, _)) = bytes.get(at..).and_then(<[u8]>::split_first_chunk) else {
                return Ok(None);
            };
            let length = i32::from_be_bytes(*length);
            at += 4;
            if length == -1 {
                self.spans.push(None);
                continue;
            }
            let length = u32::try_from(length).map_err(|_| CopyError::FieldLength(length))?;
            let begin = u32::try_from(at).map_err(|_| CopyError::RowTooLarge)?;
            at += length as usize;
            if at > MAX_MESSAGE_BYTES {
                return Err(CopyError::RowTooLarge);
            }
            if at > bytes.len() {
                return Ok(None);
            }
            self.spans.push(Some((begin, length)));
        }
        Ok(Some(at))
    }
}

/// Checks the header, and returns its length; `None` if it is incomplete.
fn header_length(bytes: &[u8]) -> Result<Option<usize>, CopyError> {
    let known = bytes.len().min(SIGNATURE.len());
    if bytes[..known] != SIGNATURE[..known] {
        return Err(CopyError::BadSignature);
    }
    let Some(numbers) = bytes.get(SIGNATURE.len()..HEADER_BYTES) else { return Ok(None) };
    let number = |at: usize| numbers[at..].first_chunk().map_or(0, |n| u32::from_be_bytes(*n));
    let flags = number(0);
    if flags & CRITICAL_FLAGS != 0 {
        return Err(CopyError::UnknownFlags(flags));
    }
    let length = HEADER_BYTES + number(4) as usize;
    if length > MAX_MESSAGE_BYTES {
        return Err(CopyError::RowTooLarge);
    }
    Ok((length <= bytes.len()).then_some(length))
}

#[cfg(test)]
mod tests;
