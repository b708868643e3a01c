use proptest::prelude::*;

use super::*;

/// `COPY (VALUES (1::int4, 'ab'), (NULL, '')) TO STDOUT (FORMAT binary)`, as PostgreSQL 15 sends it.
const GOLDEN: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\
    \0\x02\0\0\0\x04\0\0\0\x01\0\0\0\x02ab\
    \0\x02\xff\xff\xff\xff\0\0\0\0\
    \xff\xff";

type Rows = Vec<Vec<Option<Vec<u8>>>>;

fn decode(fields: usize, chunks: &[&[u8]]) -> Result<Rows, CopyError> {
    let mut decoder = CopyDecoder::new(fields);
    let mut rows = Rows::new();
    for chunk in chunks {
        decoder.decode(chunk, |row| {
            rows.push((0..fields).map(|i| row.field(i).map(<[u8]>::to_vec)).collect());
            Ok::<_, CopyError>(())
        })?;
    }
    decoder.finish()?;
    Ok(rows)
}

fn golden_rows() -> Rows {
    vec![vec![Some(vec![0, 0, 0, 1]), Some(b"ab".to_vec())], vec![None, Some(Vec::new())]]
}

fn changed(at: usize, byte: u8) -> Vec<u8> {
    let mut bytes = GOLDEN.to_vec();
    bytes[at] = byte;
    bytes
}

#[test]
fn golden_rows_decode_however_chunks_are_cut() {
    assert_eq!(decode(2, &[GOLDEN]).unwrap(), golden_rows());
    for cut in 0..GOLDEN.len() {
        let halves = [&GOLDEN[..cut], &GOLDEN[cut..]];
        assert_eq!(decode(2, &halves).unwrap(), golden_rows(), "cut at {cut}");
    }
    let bytes: Vec<&[u8]> = GOLDEN.chunks(1).collect();
    assert_eq!(decode(2, &bytes).unwrap(), golden_rows());
}

#[test]
fn truncated_rows_are_an_error() {
    for length in 0..GOLDEN.len() {
        assert_eq!(decode(2, &[&GOLDEN[..length]]), Err(CopyError::Truncated), "{length} bytes");
    }
}

#[test]
fn header_extensions_are_skipped() {
    let mut bytes = changed(18, 3);
    bytes.splice(19..19, *b"xyz");
    assert_eq!(decode(2, &[&bytes]).unwrap(), golden_rows());
    // Flags of the lower half do not change the format.
    assert_eq!(decode(2, &[&changed(14, 1)]).unwrap(), golden_rows());
}

#[test]
fn damaged_rows_are_typed_errors() {
    for (bytes, expected) in [
        (changed(0, b'X'), CopyError::BadSignature),
        (changed(10, 1), CopyError::BadSignature),
        (changed(12, 1), CopyError::UnknownFlags(0x1_0000)),
        (changed(15, 0x7f), CopyError::RowTooLarge),
        (changed(20, 3), CopyError::FieldCount { expected: 2, found: 3 }),
        (changed(19, 0x80), CopyError::FieldCount { expected: 2, found: -32_766 }),
        (changed(21, 0xff), CopyError::FieldLength(-16_777_212)),
        (changed(21, 0x7f), CopyError::RowTooLarge),
        ([GOLDEN, b"x"].concat(), CopyError::BytesAfterEnd),
        ([GOLDEN, GOLDEN].concat(), CopyError::BytesAfterEnd),
    ] {
        assert_eq!(decode(2, &[&bytes]), Err(expected), "{bytes:?}");
    }
    assert_eq!(decode(2, &[GOLDEN, b"x"]), Err(CopyError::BytesAfterEnd));
    assert_eq!(decode(3, &[GOLDEN]), Err(CopyError::FieldCount { expected: 3, found: 2 }));
}

#[test]
fn rows_without_fields_decode() {
    let bytes = [&GOLDEN[..19], &[0, 0, 0, 0, 0xff, 0xff]].concat();
    assert_eq!(decode(0, &[&bytes]).unwrap(), vec![Vec::new(), Vec::new()]);
}

#[test]
fn row_beyond_the_limit_is_an_error() {
    let half = MAX_MESSAGE_BYTES / 2;
    let mut bytes = [&GOLDEN[..19], &[0, 2]].concat();
    for _ in 0..2 {
        bytes.extend_from_slice(&u32::try_from(half).unwrap().to_be_bytes());
        bytes.resize(bytes.len() + half, b'x');
    }
    assert_eq!(decode(2, &[&bytes]), Err(CopyError::RowTooLarge));
}

proptest! {
    #[test]
    fn decoder_accepts_any_bytes_without_panic(
        fields in 0_usize..4,
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        cut in 0_usize..200,
        has_header: bool,
    ) {
        let bytes = if has_header { [&GOLDEN[..19], &bytes].concat() } else { bytes };
        let cut = cut.min(bytes.len());
        let whole = decode(fields, &[&bytes]);
        prop_assert_eq!(whole, decode(fields, &[&bytes[..cut], &bytes[cut..]]));
    }

    #[test]
    fn decoder_accepts_damaged_rows_without_panic(
        at in 0_usize..GOLDEN.len(),
        byte: u8,
        length in 0_usize..=GOLDEN.len(),
    ) {
        let _ = decode(2, &[&changed(at, byte)[..length]]);
    }
}
