//! Errors of remote stores for the user of Tidewater.

use std::error::Error as StdError;

use object_store::Error;
use object_store::client::HttpError;
use tidewater_common::quote::cut_at;

use super::pin::changed;
use crate::SourceError;
use crate::error::causes;
use crate::hosts::HostRefused;

/// Characters that a message repeats of an error.
const MAX_ERROR_CHARS: usize = 300;

/// Text with which the library begins the error of a response: its status, and what the client passes on of its body.
const STATUS: &str = "Server returned non-2xx status code: ";
/// Text with which it begins the error of a redirect, as S3 sends it for a bucket of another region.
const REDIRECT: &str = "Received redirect without LOCATION";
/// Text with which it begins the error of an object that the store has not deleted.
const NOT_DELETED: &str = "DeleteObjects request failed";

/// Returns the error of a read of a listed object.
pub(super) fn object_error(name: &str, error: &Error) -> SourceError {
    match error {
        Error::NotFound { .. } => changed(name, "was deleted"),
        Error::Precondition { .. } | Error::NotModified { .. } => changed(name, "was replaced"),
        error => store_error(name, error),
    }
}

/// Returns the error of a request.
pub(crate) fn store_error(name: &str, error: &Error) -> SourceError {
    if let Some(refused) = find_cause::<HostRefused>(error) {
        return SourceError::NotPermitted(format!("{name}: {refused}"));
    }
    SourceError::Unreadable(format!("{name}: {}", cut_at(&problem(error), MAX_ERROR_CHARS)))
}

/// Returns the cause of this type.
pub(super) fn find_cause<'a, E: StdError + 'static>(
    error: &'a (dyn StdError + 'static),
) -> Option<&'a E> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// Returns the problem, for people. Other texts of the library repeat what the server has sent.
fn problem(error: &Error) -> String {
    if let Error::InvalidPath { source } = error {
        return format!("an object has an invalid name: {source}");
    }
    if let Some(error) = find_cause::<HttpError>(error) {
        let texts: Vec<String> = causes(error).skip(1).map(ToString::to_string).collect();
        return texts.join(": ");
    }
    for cause in causes(error) {
        let text = cause.to_string();
        if let Some(status) = text.strip_prefix(STATUS) {
            let status = status.trim_end_matches([':', ' ']);
            return format!("the store returns the status {status}");
        }
        if text.starts_with(REDIRECT) {
            return "the store redirects the request: check region and endpoint".to_owned();
        }
        if text.starts_with(NOT_DELETED) {
            return "the store does not delete the object: check the permissions of its keys"
                .to_owned();
        }
    }
    "the response is not that of an object store: check url and endpoint".to_owned()
}

#[cfg(test)]
mod tests {
    use object_store::client::HttpErrorKind;

    use super::*;

    fn generic(source: impl StdError + Send + Sync + 'static) -> Error {
        Error::Generic { store: "S3", source: Box::new(source) }
    }

    #[test]
    fn unknown_texts_are_not_repeated() {
        let unknown = generic(std::io::Error::other("<html>s3cr3t</html>"));
        assert_eq!(
            store_error("s3://b/p", &unknown).to_string(),
            "s3://b/p: the response is not that of an object store: check url and endpoint"
        );
        let transport = HttpError::new(HttpErrorKind::Connect, std::io::Error::other("refused"));
        assert_eq!(store_error("x", &generic(transport)).to_string(), "x: refused");
        let status = generic(std::io::Error::other(format!("{STATUS}403 Forbidden: AccessDenied")));
        let text = store_error("x", &status).to_string();
        assert_eq!(text, "x: the store returns the status 403 Forbidden: AccessDenied");
        let kept = generic(std::io::Error::other(format!("{NOT_DELETED} for key k: s3cr3t")));
        let text = store_error("x", &kept).to_string();
        assert_eq!(
            text,
            "x: the store does not delete the object: check the permissions of its keys"
        );
        let status = generic(std::io::Error::other(format!("{STATUS}500 Internal Server Error: ")));
        let text = store_error("x", &status).to_string();
        assert_eq!(text, "x: the store returns the status 500 Internal Server Error");
    }
}
