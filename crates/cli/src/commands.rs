//! Commands. A noun is a directory; a verb is a file with its options and one function.

pub(crate) mod balance;
pub(crate) mod bench;
pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod compaction;
pub(crate) mod compactor;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod data;
pub(crate) mod delete;
pub(crate) mod event;
pub(crate) mod gc;
pub(crate) mod get;
pub(crate) mod group;
pub(crate) mod hook;
pub(crate) mod load;
pub(crate) mod meta;
pub(crate) mod meta_member;
pub(crate) mod node;
pub(crate) mod procedure;
pub(crate) mod refresh;
pub(crate) mod region;
pub(crate) mod route;
pub(crate) mod scan;
pub(crate) mod standalone;
pub(crate) mod table;
