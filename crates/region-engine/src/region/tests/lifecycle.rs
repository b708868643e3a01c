//! Changes of owner, schema, rows and key range.

mod alter;
mod ownership;
