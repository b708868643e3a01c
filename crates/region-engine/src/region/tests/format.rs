//! Content of data files.

mod frozen;
mod layout;
mod types;
