//! Formats of objects, and the names of the objects that belong to a source.

use tidewater_readers::input::{Compression, Format};

/// Format of the objects of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ObjectFormat {
    /// Parquet.
    Parquet,
    /// CSV with a header, also compressed.
    Csv,
    /// One JSON object per line, also compressed.
    Ndjson,
}

impl ObjectFormat {
    /// Name of the source kind.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
        }
    }

    /// Format of the rows of an object.
    pub(super) fn rows(self) -> Format {
        match self {
            Self::Parquet => Format::Parquet,
            Self::Csv => Format::Csv,
            Self::Ndjson => Format::Ndjson,
        }
    }

    fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Parquet => &[".parquet"],
            Self::Csv => &[".csv"],
            Self::Ndjson => &[".ndjson", ".jsonl", ".json"],
        }
    }

    /// Returns whether an object belongs to the source. `name`: its name below the prefix, with `/`
    /// between the parts.
    pub(super) fn includes(self, name: &str) -> bool {
        !name.split('/').any(is_hidden) && self.has_extension(name)
    }

    fn has_extension(self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let plain = match self {
            Self::Parquet => &name,
            Self::Csv | Self::Ndjson => name.strip_suffix(".gz").unwrap_or(&name),
        };
        self.extensions().iter().any(|extension| plain.ends_with(extension))
    }
}

/// Returns whether an object or a directory of this name is hidden, as temporary files of writers are.
pub(super) fn is_hidden(part: &str) -> bool {
    part.starts_with(['_', '.'])
}

/// Compression of an object, by its name.
pub(super) fn compression(name: &str) -> Compression {
    if name.to_ascii_lowercase().ends_with(".gz") { Compression::Gzip } else { Compression::Plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_belong_by_extension_unless_hidden() {
        use ObjectFormat::{Csv, Ndjson, Parquet};
        for (format, name, expected) in [
            (Parquet, "a.parquet", true),
            (Parquet, "day=1/a.PARQUET", true),
            (Parquet, "a.parquet.gz", false),
            (Parquet, "a.csv", false),
            (Parquet, "_temporary/a.parquet", false),
            (Parquet, "x/_a.parquet", false),
            (Parquet, ".a.parquet", false),
            (Csv, "a.csv", true),
            (Csv, "a.csv.gz", true),
            (Csv, "a.csv.gz.gz", false),
            (Csv, "a.tsv", false),
            (Csv, "csv", false),
            (Ndjson, "a.ndjson", true),
            (Ndjson, "a.jsonl.gz", true),
            (Ndjson, "a_b/c.json", true),
            (Ndjson, "a.json.bak", false),
        ] {
            assert_eq!(format.includes(name), expected, "{format:?} {name}");
        }
    }
}
