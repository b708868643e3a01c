//! The frame around every manifest object, the same for all codec versions:
//!
//! ```text
//! magic (4)  codec version (u16 le)  payload length (u32 le)  payload  crc32c of all before (u32 le)
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::CodecError;

/// The codec version that this release writes, and the newest that it reads.
const CODEC: u16 = 1;

const HEAD: usize = 10;
const TAIL: usize = 4;

/// Kind of the framed object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameKind {
    Delta,
    Checkpoint,
}

impl FrameKind {
    fn magic(self) -> [u8; 4] {
        match self {
            Self::Delta => *b"TWMD",
            Self::Checkpoint => *b"TWMC",
        }
    }
}

pub(super) fn wrap(kind: FrameKind, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD + payload.len() + TAIL);
    out.put_slice(&kind.magic());
    out.put_u16_le(CODEC);
    // A payload above 4 GiB would be read as damaged; the state of a region is far smaller.
    out.put_u32_le(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    out.put_slice(payload);
    let sum = crc32c::crc32c(&out);
    out.put_u32_le(sum);
    out.freeze()
}

pub(super) fn unwrap(kind: FrameKind, bytes: &[u8]) -> Result<&[u8], CodecError> {
    let damaged = |detail: &str| Err(CodecError::Damaged(detail.to_owned()));
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else {
        return damaged("shorter than a frame header");
    };
    let [m0, m1, m2, m3, c0, c1, l0, l1, l2, l3] = *head;
    if [m0, m1, m2, m3] != kind.magic() {
        return damaged("wrong magic bytes");
    }
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    let Some((payload, tail)) = rest.split_at_checked(length) else {
        return damaged("shorter than its recorded length");
    };
    let Ok(sum) = <[u8; TAIL]>::try_from(tail) else {
        return damaged("truncated, or followed by extra bytes");
    };
    // Verified before the version is used: a flipped bit must not read as a newer release.
    if u32::from_le_bytes(sum) != crc32c::crc32c(&bytes[..HEAD + length]) {
        return damaged("the checksum does not match");
    }
    let codec = u16::from_le_bytes([c0, c1]);
    if codec > CODEC {
        return Err(CodecError::Newer { found: codec.into(), supported: CODEC.into() });
    }
    if codec == 0 {
        return damaged("codec version 0");
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_codec_is_distinguished_from_damage() {
        let mut bytes = wrap(FrameKind::Delta, b"payload").to_vec();
        bytes[4] = 2;
        assert!(matches!(unwrap(FrameKind::Delta, &bytes), Err(CodecError::Damaged(_))));
        let end = bytes.len() - TAIL;
        let sum = crc32c::crc32c(&bytes[..end]);
        bytes[end..].copy_from_slice(&sum.to_le_bytes());
        let newer = CodecError::Newer { found: 2, supported: 1 };
        assert_eq!(unwrap(FrameKind::Delta, &bytes), Err(newer));
    }

    #[test]
    fn delta_is_not_read_as_a_checkpoint() {
        let bytes = wrap(FrameKind::Delta, b"payload");
        assert!(matches!(unwrap(FrameKind::Checkpoint, &bytes), Err(CodecError::Damaged(_))));
        assert_eq!(unwrap(FrameKind::Delta, &bytes), Ok(&b"payload"[..]));
    }
}
