//! Frame of stored records: codec byte, crc32c of the payload (big endian), payload.
//!
//! A truncation or a flipped bit at any position fails the checksum before the payload is decoded. The payload's
//! own checks therefore only see bytes that some release has written.

/// Codec of most records.
pub const CODEC: u8 = 1;
/// Bytes before the payload.
pub const FRAME_BYTES: usize = 5;

/// Frames a payload with [`CODEC`].
#[must_use]
pub fn frame(payload: &[u8]) -> Vec<u8> {
    frame_as(CODEC, payload)
}

/// Frames a payload with a codec of its own.
#[must_use]
pub fn frame_as(codec: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FRAME_BYTES + payload.len());
    bytes.push(codec);
    bytes.extend(crc32c::crc32c(payload).to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Returns the payload of a frame with [`CODEC`].
///
/// # Errors
/// The defect of the frame.
pub fn unframe(bytes: &[u8]) -> Result<&[u8], &'static str> {
    unframe_as(CODEC, bytes)
}

/// Returns the payload of a frame with this codec.
///
/// # Errors
/// The defect of the frame.
pub fn unframe_as(expected: u8, bytes: &[u8]) -> Result<&[u8], &'static str> {
    let (codec, rest) = bytes.split_first().ok_or("it is empty")?;
    if *codec != expected {
        return Err("its codec byte is unknown: it may come from a newer release");
    }
    let (checksum, payload) = rest.split_first_chunk::<4>().ok_or("it is truncated")?;
    if crc32c::crc32c(payload) != u32::from_be_bytes(*checksum) {
        return Err("its checksum does not match");
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_defect_of_a_frame_has_its_own_text() {
        let framed = frame_as(7, b"payload");
        assert_eq!(framed.len(), FRAME_BYTES + 7);
        assert_eq!(unframe_as(7, &framed), Ok(&b"payload"[..]));
        assert_eq!(unframe_as(7, &[]), Err("it is empty"));
        assert_eq!(
            unframe(&framed),
            Err("its codec byte is unknown: it may come from a newer release")
        );
        for cut in 1..FRAME_BYTES {
            assert_eq!(unframe_as(7, &framed[..cut]), Err("it is truncated"));
        }
        for cut in FRAME_BYTES..framed.len() {
            assert_eq!(unframe_as(7, &framed[..cut]), Err("its checksum does not match"));
        }
    }
}
