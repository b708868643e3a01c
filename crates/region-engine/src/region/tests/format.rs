//! Content of data files.

mod frozen;
mod layout;
mod two_formats;
mod types;
