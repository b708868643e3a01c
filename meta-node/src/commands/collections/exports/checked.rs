//! Checks of the creation of an export that do not depend on the state.

use serde_json::{Map, Value};
use tidewater_proto::v1;
use uuid::Uuid;

use crate::catalog::EXPORT_TOKEN_PREFIX;
use crate::commands::CollectionCommandError;

/// Maximum length of a name and of a token, in characters, and of a target, in bytes. Apply depends on these limits and those
/// below, so they never change.
const MAX_NAME_CHARS: usize = 100;
const MAX_TOKEN_CHARS: usize = 128;
const MAX_TARGET_BYTES: usize = 4_096;
/// Time between the begins of two steps in milliseconds: shortest, longest, default.
const MIN_INTERVAL_MS: u64 = 1_000;
const MAX_INTERVAL_MS: u64 = 24 * 3_600_000;
const DEFAULT_INTERVAL_MS: u64 = 10_000;

/// Fields of the creation of an export that do not depend on the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CheckedExport {
    /// Id of the request, and of the export.
    pub(crate) id: Uuid,
    /// Time between the begins of two steps, in milliseconds.
    pub(crate) interval_ms: u64,
}

/// Checks the fields of a creation that do not depend on the state.
///
/// # Errors
/// [`CollectionCommandError::BadRequest`] names the first problem.
pub(crate) fn check_create(
    request: &v1::CreateExportRequest,
) -> Result<CheckedExport, CollectionCommandError> {
    let Ok(id) = Uuid::parse_str(&request.request_id) else {
        return bad("the request id of an export is not a UUID");
    };
    if request.name.is_empty() || request.name.chars().count() > MAX_NAME_CHARS {
        return bad("the name of an export must have 1 to 100 characters");
    }
    if request.name.chars().any(char::is_control) {
        return bad("the name of an export must not have control characters");
    }
    if request.target.is_empty() || request.target.len() > MAX_TARGET_BYTES {
        return bad("the target of an export must have 1 to 4,096 bytes");
    }
    if parsed(&request.target).is_none() {
        return bad("the target of an export must be a JSON object");
    }
    if request.token.chars().count() > MAX_TOKEN_CHARS {
        return bad("the token of an export must have at most 128 characters");
    }
    if !request.token.is_empty() && !request.token.starts_with(EXPORT_TOKEN_PREFIX) {
        return bad("the token of an export must begin with \"export-token:\"");
    }
    let interval_ms = match request.interval_ms {
        0 => DEFAULT_INTERVAL_MS,
        of if (MIN_INTERVAL_MS..=MAX_INTERVAL_MS).contains(&of) => of,
        _ => return bad("the interval of an export must be 1s to 1d"),
    };
    Ok(CheckedExport { id, interval_ms })
}

/// Returns the fields of a target; `None`: it is no JSON object.
pub(super) fn parsed(target: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(target).ok()
}

fn bad<T>(text: &str) -> Result<T, CollectionCommandError> {
    Err(CollectionCommandError::BadRequest(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> v1::CreateExportRequest {
        v1::CreateExportRequest {
            request_id: Uuid::from_u128(1).to_string(),
            name: "x".to_owned(),
            table: "t".to_owned(),
            target: r#"{"url":"s3://b/p"}"#.to_owned(),
            ..v1::CreateExportRequest::default()
        }
    }

    #[test]
    fn creation_at_the_limits_is_valid() {
        let name = "é".repeat(100);
        let token = format!("export-token:{}", "é".repeat(115));
        let target = format!("{{{}}}", " ".repeat(4_094));
        for (interval_ms, expected) in [(0, 10_000), (1_000, 1_000), (86_400_000, 86_400_000)] {
            let largest = v1::CreateExportRequest {
                name: name.clone(),
                token: token.clone(),
                target: target.clone(),
                interval_ms,
                ..request()
            };
            let expected = CheckedExport { id: Uuid::from_u128(1), interval_ms: expected };
            assert_eq!(check_create(&largest), Ok(expected));
        }
    }

    #[test]
    fn invalid_creations_name_the_first_problem() {
        let of = request;
        let name = "the name of an export must have 1 to 100 characters";
        let size = "the target of an export must have 1 to 4,096 bytes";
        let object = "the target of an export must be a JSON object";
        let interval = "the interval of an export must be 1s to 1d";
        let token = "the token of an export must begin with \"export-token:\"";
        let named = |name: &str| v1::CreateExportRequest { name: name.to_owned(), ..of() };
        let to = |target: &str| v1::CreateExportRequest { target: target.to_owned(), ..of() };
        let every = |interval_ms| v1::CreateExportRequest { interval_ms, ..of() };
        let with = |token: &str| v1::CreateExportRequest { token: token.to_owned(), ..of() };
        let id = v1::CreateExportRequest { request_id: "1".to_owned(), ..of() };
        for (request, text) in [
            (id, "the request id of an export is not a UUID"),
            (named(""), name),
            (named(&"n".repeat(101)), name),
            (named("a\tb"), "the name of an export must not have control characters"),
            (to(""), size),
            (to(&format!("{{{}}}", " ".repeat(4_095))), size),
            (to("s3://b/p"), object),
            (to("[]"), object),
            (to("{}{}"), object),
            (every(999), interval),
            (every(86_400_001), interval),
            (with("h"), token),
            (with("export:x"), token),
            (
                with(&format!("export-token:{}", "n".repeat(116))),
                "the token of an export must have at most 128 characters",
            ),
        ] {
            let expected = CollectionCommandError::BadRequest(text.to_owned());
            assert_eq!(check_create(&request), Err(expected));
        }
    }
}
