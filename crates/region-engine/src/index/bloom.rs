//! Bloom filter of a file's row keys: the split-block filter of the Parquet specification, hashed
//! with XXH64, after a header of our own.
//!
//! ```text
//! "TWBLOOM1"   8 bytes
//! file id     16 bytes
//! keys         8 bytes, big endian: number of keys added
//! bits         the rest: blocks of 32 bytes, a power of two of them
//! ```

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parquet::bloom_filter::Sbbf;

use super::{IndexBuilder, IndexKind, PointIndex};
use crate::file_meta::FileMeta;

const MAGIC: &[u8; 8] = b"TWBLOOM1";
const HEADER: usize = 32;
const BLOCK: usize = 32;
/// Rate at which an absent key is reported as possibly present, once all keys are added.
const FALSE_POSITIVES: f64 = 0.01;

/// The Bloom filter kind of index.
#[derive(Debug, Clone, Copy)]
pub struct Bloom;

struct BloomBuilder {
    header: BytesMut,
    keys: u64,
    filter: Option<Sbbf>,
}

struct BloomFilter(Sbbf);

impl IndexKind for Bloom {
    fn name(&self) -> &'static str {
        "bloom"
    }

    fn build(&self, file: &FileMeta) -> Box<dyn IndexBuilder> {
        let mut header = BytesMut::with_capacity(HEADER);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(file.file_id.0.as_bytes());
        let filter = Sbbf::new_with_ndv_fpp(file.rows.max(1), FALSE_POSITIVES).ok();
        Box::new(BloomBuilder { header, keys: 0, filter })
    }

    fn open(&self, file: &FileMeta, bytes: &Bytes) -> Result<Arc<dyn PointIndex>, String> {
        let (header, bits) = bytes.split_at_checked(HEADER).ok_or("it ends within its header")?;
        if !header.starts_with(MAGIC) {
            return Err("it does not begin with the magic number of a Bloom filter".to_owned());
        }
        if header[8..24] != file.file_id.0.as_bytes()[..] {
            return Err("it belongs to another file".to_owned());
        }
        if bits.is_empty() || !bits.len().is_multiple_of(BLOCK) {
            return Err(format!("its bits have the invalid length of {} bytes", bits.len()));
        }
        Ok(Arc::new(BloomFilter(Sbbf::new(bits))))
    }
}

impl IndexBuilder for BloomBuilder {
    fn add(&mut self, row_key: &[u8]) {
        self.keys += 1;
        if let Some(filter) = &mut self.filter {
            filter.insert(row_key);
        }
    }

    fn finish(mut self: Box<Self>) -> Bytes {
        self.header.extend_from_slice(&self.keys.to_be_bytes());
        let mut bits = Vec::new();
        match &self.filter {
            // Writing to memory cannot fail.
            Some(filter) if filter.write_bitset(&mut bits).is_ok() => {}
            // Admits every key.
            _ => bits = vec![u8::MAX; BLOCK],
        }
        self.header.extend_from_slice(&bits);
        self.header.freeze()
    }
}

impl PointIndex for BloomFilter {
    fn may_hold(&self, row_key: &[u8]) -> bool {
        self.0.check(row_key)
    }

    fn weight(&self) -> usize {
        self.0.num_blocks() * BLOCK
    }
}

impl std::fmt::Debug for BloomFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BloomFilter").field("blocks", &self.0.num_blocks()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::samples::file;

    /// 6 keys of a file of at most 10 rows: one block.
    const GOLDEN: &str = "5457424c4f4f4d310000000f4241700080000000000000010000000000000006\
        a10000a0210228000891040224400450004068a0000848210814202040c40042";

    fn built(rows: u64, keys: impl Iterator<Item = Vec<u8>>) -> (FileMeta, Bytes) {
        let file = FileMeta { rows, ..file(1) };
        let mut builder = Bloom.build(&file);
        keys.for_each(|key| builder.add(&key));
        (file, builder.finish())
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn bloom_filter_encoding_is_frozen() {
        let keys = || (0..6_u8).map(|n| vec![n; usize::from(n)]);
        let (file, bytes) = built(10, keys());
        assert_eq!(hex(&bytes), GOLDEN);
        let stored: Vec<u8> = (0..GOLDEN.len() / 2)
            .map(|i| u8::from_str_radix(&GOLDEN[2 * i..2 * i + 2], 16).unwrap())
            .collect();
        let filter = Bloom.open(&file, &stored.into()).unwrap();
        assert!(keys().all(|key| filter.may_hold(&key)));
        assert!(!filter.may_hold(b"another"));
    }

    #[test]
    fn bloom_filter_admits_all_keys_and_few_others() {
        let key = |n: u64| n.to_be_bytes().to_vec();
        let (file, bytes) = built(5_000, (0..5_000).map(key));
        let filter = Bloom.open(&file, &bytes).unwrap();
        assert!((0..5_000).all(|n| filter.may_hold(&key(n))));
        let admitted = (10_000..20_000).filter(|n| filter.may_hold(&key(*n))).count();
        assert!(admitted < 300, "{admitted}");
    }

    #[test]
    fn damaged_bloom_filters_are_refused() {
        let (file, bytes) = built(10, std::iter::once(vec![1]));
        for length in [0, 8, 31, 32, 33, 63] {
            assert!(Bloom.open(&file, &bytes.slice(..length)).is_err(), "{length}");
        }
        for position in [0, 7, 8, 23] {
            let mut other = bytes.to_vec();
            other[position] ^= 1;
            assert!(Bloom.open(&file, &other.into()).is_err(), "{position}");
        }
    }
}
