//! Fault injection for stores, for tests of this and other crates.

mod faulty;

pub use self::faulty::{Call, Fault, FaultyStore};
