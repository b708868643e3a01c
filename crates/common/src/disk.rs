//! Classification of errors of local disks.

use std::io::{Error, ErrorKind};

/// Returns whether a write failed for lack of space: the disk or a quota is full, or the file would
/// exceed the process's limit of file sizes. A retry succeeds once there is room.
pub fn is_full(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
    )
}

/// Like [`is_full`], for libraries that report an error of the system as text.
pub fn is_full_text(message: &str) -> bool {
    ["No space left on device", "Disk quota exceeded", "File too large"]
        .iter()
        .any(|text| message.contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_full_disks_are_distinguished_from_others() {
        // Linux: ENOSPC, EDQUOT, EFBIG, EIO, EROFS.
        for (code, expected) in [(28, true), (122, true), (27, true), (5, false), (30, false)] {
            let error = Error::from_raw_os_error(code);
            assert_eq!(is_full(&error), expected, "{error}");
            let text = format!("IO error: {error}: While appending to file: x");
            assert_eq!(is_full_text(&text), expected, "{text}");
        }
    }
}
