//! Stores that misbehave on request, for tests of this and other crates.

mod faulty;

pub use self::faulty::{Call, Fault, FaultyStore};
