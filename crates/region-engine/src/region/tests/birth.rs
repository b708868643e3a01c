//! Regions that begin with the files of others: children of a split, the result of a merge.

mod begin;
mod family;
mod garbage;
mod race;
mod seal;
