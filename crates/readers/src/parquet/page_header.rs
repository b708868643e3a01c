//! Headers of Parquet pages: the sizes and encodings of a column chunk's pages, without its data.
//!
//! The Parquet library allocates what a page header claims, and has no limit for it. A header is a
//! struct in Thrift's compact protocol (`PageHeader` of parquet.thrift); fields other than those below
//! are skipped.

/// Maximum bytes of a header: it may contain the least and the greatest value of the page.
pub(super) const MAX_HEADER_BYTES: u64 = 16 << 20;
/// Maximum nesting of structs and lists.
const MAX_DEPTH: u32 = 8;

/// Header of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct PageHeader {
    /// Kind of the page, by its number in parquet.thrift.
    pub(super) kind: i64,
    /// Bytes of the page without compression.
    pub(super) bytes: i64,
    /// Bytes of the page in the file, after the header.
    pub(super) stored_bytes: i64,
    /// Number of values, nulls included.
    pub(super) values: i64,
    /// Encoding of the values, by its number in parquet.thrift.
    pub(super) encoding: i64,
    /// Bytes of the header itself.
    pub(super) header_bytes: u64,
}

/// Reason why a header was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderError {
    /// The header is longer than the bytes.
    Short,
    /// The bytes are not a header.
    Malformed,
}

/// Position in a struct of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Page,
    /// Header of a data or dictionary page, and the number of the field with its encoding.
    Values {
        encoding: i64,
    },
    Other,
}

impl PageHeader {
    pub(super) const DATA: i64 = 0;
    pub(super) const DICTIONARY: i64 = 2;
    pub(super) const DATA_V2: i64 = 3;

    /// Reads the header at the start of the bytes.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, HeaderError> {
        let mut input = Compact { bytes, at: 0 };
        let mut header = Self::default();
        input.read_struct(Level::Page, &mut header, 0)?;
        header.header_bytes = input.at as u64;
        let sizes = [header.bytes, header.stored_bytes, header.values];
        if sizes.iter().any(|size| *size < 0) {
            return Err(HeaderError::Malformed);
        }
        Ok(header)
    }
}

/// Reader of the compact protocol.
struct Compact<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Compact<'_> {
    fn byte(&mut self) -> Result<u8, HeaderError> {
        let byte = *self.bytes.get(self.at).ok_or(HeaderError::Short)?;
        self.at += 1;
        Ok(byte)
    }

    fn skip(&mut self, bytes: u64) -> Result<(), HeaderError> {
        let end = usize::try_from(bytes).ok().and_then(|bytes| self.at.checked_add(bytes));
        match end {
            Some(end) if end <= self.bytes.len() => self.at = end,
            _ if bytes > MAX_HEADER_BYTES => return Err(HeaderError::Malformed),
            _ => return Err(HeaderError::Short),
        }
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, HeaderError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(HeaderError::Malformed)
    }

    fn zigzag(&mut self) -> Result<i64, HeaderError> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    fn read_struct(
        &mut self,
        level: Level,
        header: &mut PageHeader,
        depth: u32,
    ) -> Result<(), HeaderError> {
        if depth > MAX_DEPTH {
            return Err(HeaderError::Malformed);
        }
        let mut field = 0_i64;
        loop {
            let start = self.byte()?;
            if start == 0 {
                return Ok(());
            }
            field = match i64::from(start >> 4) {
                0 => self.zigzag()?,
                delta => field.saturating_add(delta),
            };
            match (level, field, start & 0x0f) {
                (Level::Page, 1, 5) => header.kind = self.zigzag()?,
                (Level::Page, 2, 5) => header.bytes = self.zigzag()?,
                (Level::Page, 3, 5) => header.stored_bytes = self.zigzag()?,
                // Data page, dictionary page, data page of version 2.
                (Level::Page, 5 | 7, 12) => {
                    self.read_struct(Level::Values { encoding: 2 }, header, depth + 1)?;
                }
                (Level::Page, 8, 12) => {
                    self.read_struct(Level::Values { encoding: 4 }, header, depth + 1)?;
                }
                (Level::Values { .. }, 1, 5) => header.values = self.zigzag()?,
                (Level::Values { encoding }, field, 5) if field == encoding => {
                    header.encoding = self.zigzag()?;
                }
                (_, _, kind) => self.skip_value(kind, header, depth)?,
            }
        }
    }

    fn skip_value(
        &mut self,
        kind: u8,
        header: &mut PageHeader,
        depth: u32,
    ) -> Result<(), HeaderError> {
        match kind {
            // A field's boolean is in its type.
            1 | 2 => Ok(()),
            3 => self.skip(1),
            4..=6 => self.varint().map(drop),
            7 => self.skip(8),
            8 => {
                let length = self.varint()?;
                self.skip(length)
            }
            9 | 10 => self.skip_list(header, depth),
            12 => self.read_struct(Level::Other, header, depth + 1),
            // Maps do not occur in headers.
            _ => Err(HeaderError::Malformed),
        }
    }

    fn skip_list(&mut self, header: &mut PageHeader, depth: u32) -> Result<(), HeaderError> {
        if depth > MAX_DEPTH {
            return Err(HeaderError::Malformed);
        }
        let start = self.byte()?;
        let items = match u64::from(start >> 4) {
            15 => self.varint()?,
            items => items,
        };
        for _ in 0..items {
            match start & 0x0f {
                1 | 2 => self.skip(1)?,
                kind => self.skip_value(kind, header, depth + 1)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Data page of version 1: 1,000 bytes, 40 stored, 7 values, RLE_DICTIONARY, with statistics.
    const DATA: &[u8] = &[
        0x15, 0x00, 0x15, 0xd0, 0x0f, 0x15, 0x50, 0x2c, 0x15, 0x0e, 0x15, 0x10, 0x15, 0x06, 0x15,
        0x06, 0x1c, 0x18, 0x03, b'a', b'b', b'c', 0x00, 0x00, 0x00,
    ];

    #[test]
    fn page_header_yields_sizes_and_encoding() {
        let expected = PageHeader {
            kind: PageHeader::DATA,
            bytes: 1_000,
            stored_bytes: 40,
            values: 7,
            encoding: 8,
            header_bytes: DATA.len() as u64,
        };
        assert_eq!(PageHeader::read(DATA), Ok(expected));
        let followed = [DATA, b"data of the page"].concat();
        assert_eq!(PageHeader::read(&followed), Ok(expected));
        for end in 0..DATA.len() {
            assert_eq!(PageHeader::read(&DATA[..end]), Err(HeaderError::Short), "{end} bytes");
        }
    }

    #[test]
    fn malformed_headers_are_refused() {
        let deep = [[0x1c; 9].as_slice(), &[0; 20]].concat();
        let negative = [0x25, 0x01, 0x00];
        let endless = [0x15, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        let map = [0x1b, 0x00];
        let long_text = [0x18, 0xff, 0xff, 0xff, 0xff, 0x0f];
        for bytes in [deep.as_slice(), &negative, &endless, &map, &long_text] {
            assert_eq!(PageHeader::read(bytes), Err(HeaderError::Malformed), "{bytes:x?}");
        }
    }
}
