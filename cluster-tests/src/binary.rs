//! Lookup of the `tidewater` binary under test.

use std::path::PathBuf;

use crate::{HarnessError, Result};

/// Returns the binary named by `TIDEWATER_BIN`, else the one in the target directory of this test.
///
/// # Errors
/// [`HarnessError::BinaryMissing`] if the file does not exist.
pub fn tidewater() -> Result<PathBuf> {
    let path = match std::env::var_os("TIDEWATER_BIN") {
        Some(path) => PathBuf::from(path),
        None => in_target_directory()?,
    };
    if path.is_file() { Ok(path) } else { Err(HarnessError::BinaryMissing { path }) }
}

/// Returns the binary of an earlier release, named by `TIDEWATER_EARLIER_BIN`.
///
/// # Errors
/// [`HarnessError::Missing`] without the variable, [`HarnessError::BinaryMissing`] if the file does not exist.
pub fn earlier() -> Result<PathBuf> {
    let Some(path) = std::env::var_os("TIDEWATER_EARLIER_BIN").map(PathBuf::from) else {
        let what =
            "TIDEWATER_EARLIER_BIN is not set: run scripts/upgrade-test, which builds that binary";
        return Err(HarnessError::Missing { what: what.to_owned() });
    };
    if path.is_file() { Ok(path) } else { Err(HarnessError::BinaryMissing { path }) }
}

/// Returns an example of the workspace from the target directory of the binary under test.
///
/// # Errors
/// [`HarnessError::BinaryMissing`] if the file does not exist.
pub fn example(name: &str) -> Result<PathBuf> {
    let path = tidewater()?.with_file_name("examples").join(name);
    if path.is_file() { Ok(path) } else { Err(HarnessError::BinaryMissing { path }) }
}

/// Tests run as `<target>/<profile>/deps/NAME`, examples as `<target>/<profile>/examples/NAME`.
fn in_target_directory() -> Result<PathBuf> {
    let executable = std::env::current_exe().map_err(HarnessError::io("find this executable"))?;
    let profile = executable.ancestors().nth(2);
    Ok(profile.map(|profile| profile.join("tidewater")).unwrap_or_default())
}
