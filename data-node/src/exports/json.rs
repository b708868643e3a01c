//! Objects of an export as JSON (pure).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Greatest size of an object in bytes: that of a step with about 200,000 files.
pub(super) const MAX_JSON_BYTES: u64 = 32 << 20;
/// Version of the objects, which readers check.
pub(super) const FORMAT: u32 = 1;

/// Object of JSON below the prefix of an export.
pub(super) trait JsonObject: Serialize + for<'de> Deserialize<'de> {
    /// Version of the object.
    fn format(&self) -> u32;
}

/// Error of an object.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ObjectError {
    /// The object is damaged, or was written by another release.
    #[error("object {name} of the export cannot be read: {problem}")]
    Unreadable {
        /// Name of the object.
        name: String,
        /// Problem, for people.
        problem: String,
    },
    /// The object cannot be encoded.
    #[error("object {name} of the export cannot be encoded: {problem}")]
    NotEncoded {
        /// Name of the object.
        name: String,
        /// Problem, for people.
        problem: String,
    },
    /// The object names too many files.
    #[error(
        "object {name} of the export would have {bytes} bytes, and the maximum is {limit}: its step has too many files. Use \
         fewer regions or a shorter interval"
    )]
    TooLarge {
        /// Name of the object.
        name: String,
        /// Its size.
        bytes: u64,
        /// Greatest size.
        limit: u64,
    },
}

/// Encodes an object of at most `limit` bytes.
///
/// # Errors
/// [`ObjectError::TooLarge`], [`ObjectError::NotEncoded`].
pub(super) fn encode(
    name: &str,
    object: &impl JsonObject,
    limit: u64,
) -> Result<Bytes, ObjectError> {
    let name = || name.to_owned();
    let encoded = serde_json::to_vec_pretty(object)
        .map_err(|error| ObjectError::NotEncoded { name: name(), problem: error.to_string() })?;
    let bytes = encoded.len() as u64;
    if bytes > limit {
        return Err(ObjectError::TooLarge { name: name(), bytes, limit });
    }
    Ok(encoded.into())
}

/// Decodes an object.
///
/// # Errors
/// [`ObjectError::Unreadable`].
pub(super) fn decode<T: JsonObject>(name: &str, bytes: &[u8]) -> Result<T, ObjectError> {
    let unreadable = |problem: String| ObjectError::Unreadable { name: name.to_owned(), problem };
    let object: T = serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
    if object.format() != FORMAT {
        let text = format!("it has version {}, and this release reads {FORMAT}", object.format());
        return Err(unreadable(text));
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
    struct TestObject {
        format: u32,
        text: String,
    }

    impl JsonObject for TestObject {
        fn format(&self) -> u32 {
            self.format
        }
    }

    fn object(format: u32) -> TestObject {
        TestObject { format, text: "x".repeat(50) }
    }

    #[test]
    fn damaged_and_newer_objects_are_refused_by_name() {
        let bytes = encode("a/b.json", &object(FORMAT), 1_000).unwrap();
        assert_eq!(decode::<TestObject>("a/b.json", &bytes).unwrap(), object(FORMAT));
        let newer = encode("a/b.json", &object(FORMAT + 1), 1_000).unwrap();
        for damaged in [&b"{"[..], b"", b"[]", b"{\"format\": 1}", &newer] {
            let error = decode::<TestObject>("a/b.json", damaged).unwrap_err();
            assert!(matches!(error, ObjectError::Unreadable { .. }), "{error:?}");
            assert!(error.to_string().contains("a/b.json"), "{error}");
        }
    }

    #[test]
    fn too_large_object_is_refused_with_a_remedy() {
        let bytes = encode("a/b.json", &object(FORMAT), 1_000).unwrap().len() as u64;
        assert!(encode("a/b.json", &object(FORMAT), bytes).is_ok());
        let limit = bytes - 1;
        let error = encode("a/b.json", &object(FORMAT), limit).unwrap_err();
        assert_eq!(error, ObjectError::TooLarge { name: "a/b.json".to_owned(), bytes, limit });
        assert!(error.to_string().contains("Use fewer regions or a shorter interval"), "{error}");
    }
}
