//! Stores that misbehave on request, for tests of this and other crates.
