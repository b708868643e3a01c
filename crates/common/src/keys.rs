//! Row keys: the order-preserving bytes of a row's primary key, and ranges of them.
//!
//! A row key is `memcomparable(key column 1) .. memcomparable(key column n)`, after a two-byte, big
//! endian vnode when the table is hash-distributed. These bytes are stored (catalog, manifests, SST
//! bounds) and frozen by tests. In memory, whole batches are compared through `arrow-row` instead.
//! Its bytes may change between releases and are never stored. Its order is the same, which a
//! property
//! test checks.

mod codec;
mod range;
mod value;

pub use self::codec::{KeyCodec, KeyError};
pub use self::range::{
    KeyRange, global_key, split_global_key, split_global_range, successor, table_range,
};

#[cfg(test)]
mod tests;
