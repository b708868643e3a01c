//! Listings of objects, bounded and in the order of their names.

use super::pin::Pin;
use crate::{Listing, MAX_SPLITS, SourceError};

/// Objects of a listing in progress.
#[derive(Debug)]
pub(super) struct ObjectList {
    /// Name of the prefix in messages, before a slash.
    prefix: String,
    examined: usize,
    /// Maximum number of objects, including those that do not belong to the source.
    max_examined: usize,
    /// Objects of the source, in any order.
    pub(super) pins: Vec<Pin>,
}

impl ObjectList {
    /// Creates an empty list. `prefix` precedes the names of objects in messages. `max_examined`: maximum number of
    /// objects, including those that do not belong to the source.
    pub(super) fn new(prefix: String, max_examined: usize) -> Self {
        Self { prefix, examined: 0, max_examined, pins: Vec::new() }
    }

    /// Counts an object or a directory, whether it belongs to the source or not.
    ///
    /// # Errors
    /// [`SourceError::Unreadable`] above the limit.
    pub(super) fn examine(&mut self) -> Result<(), SourceError> {
        self.examined += 1;
        if self.examined > self.max_examined {
            return Err(SourceError::Unreadable(format!(
                "{} has more than {} objects: name a prefix with fewer",
                self.prefix, self.max_examined
            )));
        }
        Ok(())
    }

    /// Adds an object of the source.
    ///
    /// # Errors
    /// [`SourceError::Unreadable`] above the limit.
    pub(super) fn add(&mut self, pin: Pin) -> Result<(), SourceError> {
        if self.pins.len() == MAX_SPLITS {
            return Err(SourceError::Unreadable(format!(
                "{} has more than {MAX_SPLITS} objects of the source: write fewer, larger objects, or \
                 name a prefix with fewer",
                self.prefix
            )));
        }
        self.pins.push(pin);
        Ok(())
    }

    /// Returns the listing.
    ///
    /// # Errors
    /// [`SourceError::Unreadable`] if a pin is too long.
    pub(super) fn finish(mut self) -> Result<Listing, SourceError> {
        self.pins.sort_unstable_by(|one, other| one.object.cmp(&other.object));
        let bytes = self.pins.iter().map(|pin| pin.size).fold(0, u64::saturating_add);
        let objects = if self.pins.len() == 1 { "object" } else { "objects" };
        let snapshot = format!("{} {objects}, {}", self.pins.len(), size_text(bytes));
        let named = |pin: Pin| {
            let name = format!("{}/{}", self.prefix, pin.object);
            pin.into_split(name)
        };
        let splits = self.pins.into_iter().map(named).collect::<Result<_, _>>()?;
        Ok(Listing { snapshot, splits })
    }
}

/// Returns a size for people, as `12.4 MiB`.
pub(super) fn size_text(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut tenths = u128::from(bytes) * 10;
    let mut unit = "B";
    for larger in units {
        if tenths < 10_240 {
            break;
        }
        tenths /= 1_024;
        unit = larger;
    }
    match unit {
        "B" => format!("{bytes} B"),
        unit => format!("{}.{} {unit}", tenths / 10, tenths % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(object: String) -> Pin {
        Pin { object, size: 1_000_000, modified: 0, e_tag: None, version: None }
    }

    #[test]
    fn objects_are_listed_in_the_order_of_names() {
        let mut list = ObjectList::new("s3://b/p".to_owned(), 4);
        for name in ["b", "a/z", "a", "B"] {
            list.add(pin(name.to_owned())).unwrap();
        }
        let listing = list.finish().unwrap();
        let names: Vec<&str> = listing.splits.iter().map(|split| split.name.as_str()).collect();
        assert_eq!(names, ["s3://b/p/B", "s3://b/p/a", "s3://b/p/a/z", "s3://b/p/b"]);
        assert_eq!(listing.snapshot, "4 objects, 3.8 MiB");
    }

    #[test]
    fn number_of_objects_is_bounded() {
        let mut list = ObjectList::new("s3://b/p".to_owned(), 2);
        for number in 0..MAX_SPLITS {
            list.add(pin(number.to_string())).unwrap();
        }
        let error = list.add(pin("x".to_owned())).unwrap_err().to_string();
        assert!(error.contains("more than 10000 objects of the source: write fewer"), "{error}");
        list.examine().unwrap();
        list.examine().unwrap();
        let error = list.examine().unwrap_err().to_string();
        assert!(error.contains("more than 2 objects: name a prefix with fewer"), "{error}");
    }

    #[test]
    fn sizes_are_shown_with_a_unit() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (13_002_342, "12.3 MiB"),
            (u64::MAX, "16383.9 PiB"),
        ] {
            assert_eq!(size_text(bytes), expected);
        }
    }
}
