//! Pins: what identifies the content of an object.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use object_store::ObjectMeta;

use crate::{MAX_PIN_BYTES, SourceError, Split};

const OBJECT: &str = "object";
const SIZE: &str = "size";
const MODIFIED: &str = "modified";
const E_TAG: &str = "e_tag";
const VERSION: &str = "version";

/// Identity of an object's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pin {
    /// Name below the prefix.
    pub(super) object: String,
    /// Size in bytes.
    pub(super) size: u64,
    /// Time of the last change since 1970-01-01: nanoseconds of a file, seconds of an object.
    pub(super) modified: i128,
    /// Entity tag of the store.
    pub(super) e_tag: Option<String>,
    /// Version by which the store has the content, also after the object is replaced.
    pub(super) version: Option<String>,
}

impl Pin {
    /// Pins a local file.
    pub(super) fn of_file(object: &str, metadata: &Metadata) -> Self {
        let seconds = i128::from(metadata.mtime());
        Self {
            object: object.to_owned(),
            size: metadata.len(),
            modified: seconds * 1_000_000_000 + i128::from(metadata.mtime_nsec()),
            e_tag: None,
            version: None,
        }
    }

    /// Pins an object of a store. `object`: its name below the prefix.
    pub(super) fn of_object(object: &str, meta: &ObjectMeta) -> Self {
        Self {
            object: object.to_owned(),
            size: meta.size,
            // A read returns whole seconds, a listing may return more.
            modified: i128::from(meta.last_modified.timestamp()),
            e_tag: meta.e_tag.clone(),
            version: meta.version.clone(),
        }
    }

    /// Returns whether `found` is the pinned content. Two copies of an object may differ in time, so that
    /// the time counts only without an entity tag.
    pub(super) fn is_content_of(&self, found: &Self) -> bool {
        let same_state = match (&self.e_tag, &found.e_tag) {
            (Some(pinned), Some(found)) => pinned == found,
            _ => self.modified == found.modified,
        };
        let same_version = match (&self.version, &found.version) {
            (Some(pinned), Some(found)) => pinned == found,
            _ => true,
        };
        self.size == found.size && same_state && same_version
    }

    /// Returns the split of an object. `name` is for people.
    ///
    /// # Errors
    /// [`SourceError::Unreadable`] if the pin is too long.
    pub(super) fn into_split(self, name: String) -> Result<Split, SourceError> {
        let bytes = self.size;
        let mut pin = BTreeMap::from([
            (OBJECT.to_owned(), self.object),
            (SIZE.to_owned(), self.size.to_string()),
            (MODIFIED.to_owned(), self.modified.to_string()),
        ]);
        pin.extend(self.e_tag.map(|tag| (E_TAG.to_owned(), tag)));
        pin.extend(self.version.map(|version| (VERSION.to_owned(), version)));
        let length: usize = pin.iter().map(|(key, value)| key.len() + value.len()).sum();
        if length > MAX_PIN_BYTES {
            return Err(SourceError::Unreadable(format!(
                "{name}: the name is too long ({length} bytes with its version, the maximum is \
                 {MAX_PIN_BYTES}): rename the object"
            )));
        }
        Ok(Split { name, pin, bytes })
    }

    /// Returns the pin of a split.
    ///
    /// # Errors
    /// [`SourceError::Changed`] if another kind, or another release, made the split.
    pub(super) fn of_split(split: &Split) -> Result<Self, SourceError> {
        let field = |key: &str| split.pin.get(key).cloned();
        let read = || {
            Some(Self {
                object: field(OBJECT)?,
                size: field(SIZE)?.parse().ok()?,
                modified: field(MODIFIED)?.parse().ok()?,
                e_tag: field(E_TAG),
                version: field(VERSION),
            })
        };
        read().ok_or_else(|| {
            SourceError::Changed(format!(
                "{}: the listing is of another kind of source: list it again",
                split.name
            ))
        })
    }
}

/// Returns the error of an object whose pinned content no longer exists.
pub(super) fn changed(name: &str, detail: &str) -> SourceError {
    SourceError::Changed(format!("{name} {detail} since the source was listed: list it again"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(size: u64, modified: i128, e_tag: Option<&str>, version: Option<&str>) -> Pin {
        Pin {
            object: "a/b.csv".to_owned(),
            size,
            modified,
            e_tag: e_tag.map(str::to_owned),
            version: version.map(str::to_owned),
        }
    }

    #[test]
    fn pins_survive_their_splits() {
        for pin in [pin(7, -1, None, None), pin(0, 1 << 70, Some("\"x\""), Some("v"))] {
            let split = pin.clone().into_split("name".to_owned()).unwrap();
            assert_eq!(split.bytes, pin.size);
            assert_eq!(Pin::of_split(&split).unwrap(), pin);
        }
    }

    #[test]
    fn malformed_and_long_pins_are_refused() {
        let mut long = pin(1, 1, None, None);
        long.object = "x".repeat(MAX_PIN_BYTES);
        let error = long.into_split("name".to_owned()).unwrap_err();
        assert!(matches!(error, SourceError::Unreadable(_)), "{error}");
        let mut split = pin(1, 1, None, None).into_split("name".to_owned()).unwrap();
        split.pin.remove(SIZE);
        assert!(matches!(Pin::of_split(&split), Err(SourceError::Changed(_))));
    }

    #[test]
    fn content_is_compared_by_tag_then_time() {
        let tagged = |tag| pin(1, 5, Some(tag), None);
        for (one, other, expected) in [
            (pin(1, 5, None, None), pin(1, 5, None, None), true),
            (pin(1, 5, None, None), pin(2, 5, None, None), false),
            (pin(1, 5, None, None), pin(1, 6, None, None), false),
            (tagged("a"), pin(1, 6, Some("a"), None), true),
            (tagged("a"), tagged("b"), false),
            (tagged("a"), pin(1, 6, None, None), false),
            (pin(1, 5, None, Some("v")), pin(1, 5, None, Some("w")), false),
        ] {
            assert_eq!(one.is_content_of(&other), expected, "{one:?} {other:?}");
        }
    }
}
