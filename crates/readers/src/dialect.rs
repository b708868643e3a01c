//! Detects a CSV file with another delimiter by its header.

use super::error::LoadError;
use crate::delimiter::Delimiter;

/// Delimiters in common use, the most frequent first.
const COMMON: [Delimiter; 4] =
    [Delimiter(b';'), Delimiter(b'\t'), Delimiter(b'|'), Delimiter(b',')];

/// Characters of the header that a message repeats.
const MAX_QUOTED: usize = 120;

/// Returns the delimiter that the only cell of a header contains, if there is one.
fn other_delimiter(header: &[&str], used: Delimiter) -> Option<Delimiter> {
    let [cell] = header else { return None };
    COMMON.into_iter().find(|common| *common != used && cell.contains(char::from(common.0)))
}

/// Rejects a header that probably has another delimiter. A header that is the name of a column
/// (`is_column`) is accepted.
pub fn check_dialect(
    file: &str,
    header: &[&str],
    used: Delimiter,
    is_column: impl Fn(&str) -> bool,
) -> Result<(), LoadError> {
    let Some(suggested) = other_delimiter(header, used) else { return Ok(()) };
    if header.iter().all(|name| is_column(name)) {
        return Ok(());
    }
    let header = header.concat().replace('\t', "\\t").chars().take(MAX_QUOTED).collect();
    Err(LoadError::Dialect { file: file.to_owned(), header, suggested })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_of_one_cell_suggests_its_delimiter() {
        for (header, used, suggested) in [
            (&["a;b"][..], b',', Some(b';')),
            (&["a\tb"], b',', Some(b'\t')),
            (&["a|b"], b',', Some(b'|')),
            (&["a,b"], b';', Some(b',')),
            (&["a;b"], b';', None),
            (&["a b"], b',', None),
            (&["a"], b',', None),
            (&["a;b", "c"], b',', None),
            (&[], b',', None),
        ] {
            let found = other_delimiter(header, Delimiter(used));
            assert_eq!(found, suggested.map(Delimiter), "{header:?}");
        }
    }

    #[test]
    fn header_that_names_a_column_is_accepted() {
        let comma = Delimiter::default();
        assert!(check_dialect("a.csv", &["a;b"], comma, |name| name == "a;b").is_ok());
        let error = check_dialect("a.csv", &["a\tb"], comma, |_| false).unwrap_err();
        assert!(matches!(&error, LoadError::Dialect { suggested: Delimiter(b'\t'), .. }));
        assert!(error.to_string().contains("`a\\tb`"), "{error}");
    }
}
