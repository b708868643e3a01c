//! Global keys without an allocation: a table id and a row key need not be joined for a lookup.

use std::cmp::Ordering;

use tidewater_common::ids::TableId;

/// A borrowed global key; ordered like its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GlobalKey<'a> {
    /// The first four bytes, big endian, with zeros in the place of missing ones.
    head: u32,
    /// Bytes of the head that the key has. A key that ends within its head is less than those that continue it.
    head_bytes: u8,
    /// The bytes after the head.
    rest: &'a [u8],
}

impl<'a> GlobalKey<'a> {
    /// Returns the key with these bytes, which may be shorter than a table id.
    #[must_use]
    pub fn from_bytes(key: &'a [u8]) -> Self {
        match key.split_at_checked(4) {
            Some((head, rest)) => Self { head: first_four(head), head_bytes: 4, rest },
            // Fewer than four bytes, so the number fits.
            None => Self { head: first_four(key), head_bytes: key.len() as u8, rest: &[] },
        }
    }

    /// Returns the key of a row of a table.
    #[must_use]
    pub fn in_table(table: TableId, row_key: &'a [u8]) -> Self {
        Self { head: table.get(), head_bytes: 4, rest: row_key }
    }

    /// Returns the bytes that this key and another one begin with; `None` unless both are keys of one table.
    pub(crate) fn shared_with(self, other: GlobalKey<'_>) -> Option<SharedStart> {
        let is_same_table = (self.head, self.head_bytes, other.head_bytes) == (other.head, 4, 4);
        let differs = |(own, other): (&u8, &u8)| own != other;
        let shorter = self.rest.len().min(other.rest.len());
        let shared = self.rest.iter().zip(other.rest).position(differs).unwrap_or(shorter);
        let rest = self.rest.get(..shared).unwrap_or_default();
        is_same_table.then(|| SharedStart { head: self.head, rest: rest.into() })
    }

    /// Returns the eight bytes after the shared ones as a number, with zeros in the place of missing ones: the number
    /// of a greater key is never smaller. `None` shares nothing.
    ///
    /// # Errors
    /// The key does not begin with the shared bytes: its order relative to all keys that do.
    pub(crate) fn number_after(self, shared: Option<&SharedStart>) -> Result<u64, Ordering> {
        let Some(shared) = shared else {
            return Ok((u64::from(self.head) << 32) | u64::from(first_four(self.rest)));
        };
        match self.head.cmp(&shared.head).then(self.head_bytes.cmp(&4)) {
            Ordering::Equal => {}
            order => return Err(order),
        }
        match self.rest.strip_prefix(&*shared.rest) {
            Some(after) => Ok(first_eight(after)),
            None => Err(self.rest.cmp(&shared.rest)),
        }
    }
}

/// Bytes that several keys of one table begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SharedStart {
    head: u32,
    rest: Box<[u8]>,
}

/// Returns the first eight bytes, big endian; missing ones are zero.
fn first_eight(bytes: &[u8]) -> u64 {
    match bytes.first_chunk::<8>() {
        Some(eight) => u64::from_be_bytes(*eight),
        None => {
            let after = bytes.get(4..).unwrap_or_default();
            (u64::from(first_four(bytes)) << 32) | u64::from(first_four(after))
        }
    }
}

/// Returns the first four bytes, big endian; missing ones are zero.
fn first_four(bytes: &[u8]) -> u32 {
    match bytes.first_chunk::<4>() {
        Some(four) => u32::from_be_bytes(*four),
        None => {
            let mut four = [0; 4];
            for (to, from) in four.iter_mut().zip(bytes) {
                *to = *from;
            }
            u32::from_be_bytes(four)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn key_in_table_equals_its_joined_bytes() {
        let joined = [&7u32.to_be_bytes()[..], b"row"].concat();
        assert_eq!(GlobalKey::in_table(TableId(7), b"row"), GlobalKey::from_bytes(&joined));
        assert_eq!(
            GlobalKey::in_table(TableId(7), b""),
            GlobalKey::from_bytes(&7u32.to_be_bytes())
        );
    }

    #[test]
    fn shared_bytes_are_those_of_one_table() {
        let key = |text: &'static [u8]| GlobalKey::from_bytes(text);
        let shared = |left, right| key(left).shared_with(key(right));
        let bytes = |rest: &[u8]| Some(SharedStart { head: 1, rest: rest.into() });
        assert_eq!(shared(b"\0\0\0\x01abc", b"\0\0\0\x01abd"), bytes(b"ab"));
        assert_eq!(shared(b"\0\0\0\x01ab", b"\0\0\0\x01abd"), bytes(b"ab"));
        assert_eq!(shared(b"\0\0\0\x01", b"\0\0\0\x01x"), bytes(b""));
        assert_eq!(shared(b"\0\0\0\x01a", b"\0\0\0\x02a"), None);
        assert_eq!(shared(b"\0\0\0", b"\0\0\0"), None);
        let after = |text, rest: &[u8]| key(text).number_after(bytes(rest).as_ref());
        assert_eq!(after(b"\0\0\0\x01abc", b"ab"), Ok(u64::from(b'c') << 56));
        assert_eq!(after(b"\0\0\0\x01ab12345678x", b"ab"), Ok(0x3132_3334_3536_3738));
        assert_eq!(after(b"\0\0\0\x01a", b"ab"), Err(Ordering::Less));
        assert_eq!(after(b"\0\0\0\x01b", b"ab"), Err(Ordering::Greater));
        assert_eq!(after(b"\0\0\0", b""), Err(Ordering::Less));
        assert_eq!(after(b"\0\0\0\x02", b""), Err(Ordering::Greater));
    }

    proptest! {
        // Few values, so that keys are often equal or continue each other.
        #[test]
        fn keys_are_ordered_like_their_bytes(
            left in vec(0u8..3, 0..12), right in vec(0u8..3, 0..12),
        ) {
            let (left_key, right_key) = (GlobalKey::from_bytes(&left), GlobalKey::from_bytes(&right));
            prop_assert_eq!(left_key.cmp(&right_key), left.cmp(&right));
        }

        #[test]
        fn numbers_are_ordered_like_their_keys(
            first in vec(0u8..2, 0..14), last in vec(0u8..2, 0..14), key in vec(0u8..2, 0..16),
        ) {
            let (first, last) = (GlobalKey::from_bytes(&first), GlobalKey::from_bytes(&last));
            let key = GlobalKey::from_bytes(&key);
            let shared = first.shared_with(last);
            for known in [first, last] {
                let number = known.number_after(shared.as_ref()).unwrap();
                match key.number_after(shared.as_ref()) {
                    Ok(own) if key <= known => prop_assert!(own <= number),
                    Ok(own) => prop_assert!(own >= number),
                    Err(order) => prop_assert_eq!(order, key.cmp(&known)),
                }
            }
        }
    }
}
