//! Checksums of a file's data, block by block.

/// Bytes covered by one checksum.
pub(crate) const BLOCK_BYTES: u64 = if cfg!(test) { 512 } else { 64 << 10 };

/// Computes the block checksums of a stream of bytes.
#[derive(Debug, Default)]
pub(crate) struct BlockChecksums {
    done: Vec<u32>,
    current: u32,
    filled: u64,
}

impl BlockChecksums {
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = usize::try_from(BLOCK_BYTES - self.filled).unwrap_or(usize::MAX);
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.current = crc32c::crc32c_append(self.current, now);
            self.filled += now.len() as u64;
            if self.filled == BLOCK_BYTES {
                self.done.push(self.current);
                self.current = 0;
                self.filled = 0;
            }
            bytes = rest;
        }
    }

    pub(crate) fn finish(mut self) -> Vec<u32> {
        if self.filled > 0 {
            self.done.push(self.current);
        }
        self.done
    }
}

/// Verifies bytes that begin with a block at offset `start` and end with a block. Returns the
/// number of the first damaged block, if there is one.
pub(crate) fn damaged_block(checksums: &[u32], start: u64, bytes: &[u8]) -> Option<u64> {
    let first = start / BLOCK_BYTES;
    let block_bytes = usize::try_from(BLOCK_BYTES).unwrap_or(usize::MAX);
    bytes.chunks(block_bytes).zip(first..).find_map(|(block, number)| {
        let expected = usize::try_from(number).ok().and_then(|n| checksums.get(n));
        (expected != Some(&crc32c::crc32c(block))).then_some(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_checksums_detect_every_flipped_byte() {
        let data: Vec<u8> = (0..3 * BLOCK_BYTES + 17).map(|i| (i % 251) as u8).collect();
        let mut checksums = BlockChecksums::default();
        for piece in data.chunks(1_000) {
            checksums.update(piece);
        }
        let checksums = checksums.finish();
        assert_eq!(checksums.len(), 4);
        assert_eq!(damaged_block(&checksums, 0, &data), None);
        let second = usize::try_from(BLOCK_BYTES).unwrap();
        assert_eq!(damaged_block(&checksums, BLOCK_BYTES, &data[second..2 * second]), None);
        for position in [0, second, 2 * second - 1, data.len() - 1] {
            let mut damaged = data.clone();
            damaged[position] ^= 0x10;
            let expected = (position / second) as u64;
            assert_eq!(damaged_block(&checksums, 0, &damaged), Some(expected));
        }
        // More bytes than there are checksums for.
        assert_eq!(damaged_block(&checksums[..3], 0, &data), Some(3));
    }
}
