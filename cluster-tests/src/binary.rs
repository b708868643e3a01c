//! Finds the `tidewater` binary under test.

use std::path::PathBuf;

use crate::{HarnessError, Result};

/// The binary named by `TIDEWATER_BIN`, else the one that was built beside this test.
///
/// # Errors
/// [`HarnessError::BinaryMissing`] when there is none.
pub fn tidewater() -> Result<PathBuf> {
    let path = match std::env::var_os("TIDEWATER_BIN") {
        Some(path) => PathBuf::from(path),
        None => beside_this_executable()?,
    };
    if path.is_file() { Ok(path) } else { Err(HarnessError::BinaryMissing { path }) }
}

/// An example of the workspace, built beside the binary under test.
///
/// # Errors
/// [`HarnessError::BinaryMissing`] when there is none.
pub fn example(name: &str) -> Result<PathBuf> {
    let path = tidewater()?.with_file_name("examples").join(name);
    if path.is_file() { Ok(path) } else { Err(HarnessError::BinaryMissing { path }) }
}

/// Tests run as `<target>/<profile>/deps/NAME`, examples as `<target>/<profile>/examples/NAME`.
fn beside_this_executable() -> Result<PathBuf> {
    let me = std::env::current_exe().map_err(HarnessError::io("find this executable"))?;
    Ok(me.ancestors().nth(2).map(|profile| profile.join("tidewater")).unwrap_or_default())
}
