//! Paged lists of the service `StorageAdmin`: read as a whole, and searched by name.
//!
//! A page has entries in the order of their names. The next one begins after its last name.

use tidewater_proto::v1;

use crate::error::ClientError;

/// Maximum number of entries of a page. A hold may have 1,000 tables.
pub(super) const PAGE: u32 = 250;

/// Entry of a list, which has a name of its own there.
pub(super) trait ListEntry {
    /// Returns the name; empty if the entry has none.
    fn name(&self) -> &str;
}

impl ListEntry for v1::ListedExport {
    fn name(&self) -> &str {
        self.export.as_ref().map_or("", |export| export.name.as_str())
    }
}

impl ListEntry for v1::ListedHold {
    fn name(&self) -> &str {
        self.hold.as_ref().map_or("", |hold| hold.name.as_str())
    }
}

/// Page of a list.
#[derive(Debug)]
pub(super) struct ListPage<T> {
    /// Entries in the order of their names.
    pub(super) entries: Vec<T>,
    /// Later entries exist.
    pub(super) more: bool,
}

impl<T: ListEntry> ListPage<T> {
    /// Returns the name after which the next page begins; `None`: this page is the last one. `after`: name after which
    /// this page begins. A page that does not advance is the last one, or it would be read again and again.
    fn next_after(&self, after: &str) -> Option<String> {
        let last = self.entries.last()?.name();
        (self.more && last > after).then(|| last.to_owned())
    }
}

/// Reads all entries of a list, by name. `read`: returns the page that begins after a name.
///
/// # Errors
/// Those of `read`.
pub(super) async fn all_entries<T, F>(read: impl Fn(String) -> F) -> Result<Vec<T>, ClientError>
where
    T: ListEntry,
    F: Future<Output = Result<ListPage<T>, ClientError>>,
{
    let mut found = Vec::new();
    let mut after = String::new();
    loop {
        let page = read(after.clone()).await?;
        let next = page.next_after(&after);
        // Entries of a page that does not advance have been read.
        found.extend(page.entries.into_iter().filter(|entry| entry.name() > after.as_str()));
        match next {
            Some(next) => after = next,
            None => return Ok(found),
        }
    }
}

/// Returns the entry with this name; `None`: the list has none. `read`: returns the page that begins after a name.
///
/// # Errors
/// Those of `read`.
pub(super) async fn entry_named<T, F>(
    name: &str,
    read: impl Fn(String) -> F,
) -> Result<Option<T>, ClientError>
where
    T: ListEntry,
    F: Future<Output = Result<ListPage<T>, ClientError>>,
{
    let mut after = text_before(name).to_owned();
    loop {
        let page = read(after.clone()).await?;
        let next = page.next_after(&after);
        if let Some(found) = page.entries.into_iter().find(|entry| entry.name() == name) {
            return Ok(Some(found));
        }
        match next {
            Some(next) if next.as_str() < name => after = next,
            _ => return Ok(None),
        }
    }
}

/// Returns a text that is before a name, and close to it: the name without its last character.
fn text_before(name: &str) -> &str {
    name.char_indices().next_back().map_or("", |(last, _)| &name[..last])
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Entry(&'static str);

    impl ListEntry for Entry {
        fn name(&self) -> &str {
            self.0
        }
    }

    /// Returns the page of two entries that begins after a name.
    fn page_after(names: &[&'static str], after: &str) -> ListPage<Entry> {
        let later: Vec<Entry> =
            names.iter().copied().filter(|name| *name > after).map(Entry).collect();
        let more = later.len() > 2;
        ListPage { entries: later.into_iter().take(2).collect(), more }
    }

    /// Counts a read. An endless loop ends with an error.
    fn count(reads: &Cell<u32>) -> Result<(), ClientError> {
        reads.set(reads.get() + 1);
        match reads.get() {
            0..=10 => Ok(()),
            _ => Err(ClientError::BadInput("too many reads".to_owned())),
        }
    }

    #[tokio::test]
    async fn list_has_the_entries_of_all_pages() {
        let lists: [(&[&'static str], u32); 5] = [
            (&[], 1),
            (&["a"], 1),
            (&["a", "b"], 1),
            (&["a", "b", "c"], 2),
            (&["a", "b", "c", "d", "e"], 3),
        ];
        for (names, expected_reads) in lists {
            let reads = Cell::new(0);
            let found = all_entries(|after| {
                let page = count(&reads).map(|()| page_after(names, &after));
                async { page }
            });
            let found: Vec<&str> = found.await.unwrap().iter().map(|entry| entry.0).collect();
            assert_eq!(found, names);
            assert_eq!(reads.get(), expected_reads, "{names:?}");
        }
    }

    #[tokio::test]
    async fn page_that_does_not_advance_ends_the_list() {
        // Names of the repeated page, entries that are found, number of reads.
        let pages: [(&[&'static str], &[&str], u32); 3] =
            [(&["a", "b"], &["a", "b"], 2), (&[], &[], 1), (&[""], &[], 1)];
        for (repeated, expected, expected_reads) in pages {
            let reads = Cell::new(0);
            let read = |_: String| {
                let entries: Vec<Entry> = repeated.iter().copied().map(Entry).collect();
                let page = count(&reads).map(|()| ListPage { entries, more: true });
                async { page }
            };
            let found: Vec<Entry> = all_entries(read).await.unwrap();
            let found: Vec<&str> = found.iter().map(|entry| entry.0).collect();
            assert_eq!(found, expected);
            assert_eq!(reads.get(), expected_reads, "{repeated:?}");
            assert_eq!(entry_named("z", read).await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn entry_is_found_by_its_whole_name() {
        let names = &["a", "aba", "abb", "abc", "abd", "b"];
        // Name, number of reads.
        for (name, expected_reads) in
            [("a", 1), ("abb", 1), ("abd", 2), ("abe", 3), ("", 1), ("ab", 1), ("c", 3)]
        {
            let reads = Cell::new(0);
            let found = entry_named(name, |after| {
                let page = count(&reads).map(|()| page_after(names, &after));
                async { page }
            });
            let expected = names.iter().copied().find(|known| *known == name).map(Entry);
            assert_eq!(found.await.unwrap(), expected, "{name}");
            assert_eq!(reads.get(), expected_reads, "{name}");
        }
    }

    #[tokio::test]
    async fn error_of_a_page_is_returned() {
        let read = |after: String| async move {
            if after.is_empty() {
                return Ok(page_after(&["a", "b", "c"], ""));
            }
            Err(ClientError::BadInput(after))
        };
        assert_eq!(all_entries(read).await.unwrap_err().to_string(), "b");
        assert_eq!(entry_named("x", read).await.unwrap_err().to_string(), "b");
        assert_eq!(entry_named("xy", read).await.unwrap_err().to_string(), "x");
    }

    #[test]
    fn text_before_a_name_is_its_beginning() {
        for (name, before) in [("", ""), ("a", ""), ("ab", "a"), ("aé", "a"), ("éa", "é")] {
            assert_eq!(text_before(name), before);
        }
    }
}
