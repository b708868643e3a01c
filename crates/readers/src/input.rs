//! Inputs of a load: files and members of zip archives, with their formats.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::error::LoadError;

/// Format of the rows of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// CSV with a header.
    Csv,
    /// One JSON object per line.
    Ndjson,
    /// Parquet.
    Parquet,
}

/// Compression of the bytes of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// No compression.
    Plain,
    /// One or more gzip members.
    Gzip,
    /// A member of a zip archive.
    Zip {
        /// Offset of its data in the archive.
        start: u64,
        /// Length of its data in bytes.
        length: u64,
        /// True if its data is compressed.
        deflated: bool,
        /// CRC-32 of the decompressed data.
        crc: u32,
    },
}

/// A file, or a member of a zip archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The file.
    pub path: PathBuf,
    /// Name in messages: the path, and for an archive member its name after a colon.
    pub name: String,
    /// Format of the rows.
    pub format: Format,
    /// Compression of the bytes.
    pub compression: Compression,
    /// Size on disk in bytes, for progress.
    pub size: u64,
}

/// Returns the inputs that a file contains.
pub fn inspect(path: &Path) -> Result<Vec<Input>, LoadError> {
    inspect_as(path, path.display().to_string())
}

/// Returns the inputs that a file contains, with `name` for messages and for the format.
pub fn inspect_as(path: &Path, name: String) -> Result<Vec<Input>, LoadError> {
    let read = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => LoadError::NotFound { file: name.clone() },
        _ => LoadError::Read { file: name.clone(), source },
    };
    let metadata = std::fs::metadata(path).map_err(read)?;
    if metadata.is_dir() {
        return Err(LoadError::Directory { file: name });
    }
    if metadata.len() == 0 {
        return Err(LoadError::Empty { file: name });
    }
    let mut file = File::open(path).map_err(read)?;
    let mut head = Vec::with_capacity(512);
    (&mut file).take(512).read_to_end(&mut head).map_err(read)?;
    file.seek(SeekFrom::Start(0)).map_err(read)?;
    let input = |format, compression| Input {
        path: path.to_owned(),
        name: name.clone(),
        format,
        compression,
        size: metadata.len(),
    };
    match container(&name, &head) {
        Container::Zip => zip_members(path, &name, file),
        Container::Gzip => {
            let inner = name.strip_suffix(".gz").unwrap_or(&name);
            let head = gunzip_head(file).map_err(|error| LoadError::BadCompression {
                file: name.clone(),
                reason: error.to_string(),
            })?;
            Ok(vec![input(format_of(inner, &head), Compression::Gzip)])
        }
        Container::Parquet => Ok(vec![input(Format::Parquet, Compression::Plain)]),
        Container::None => Ok(vec![input(format_of(&name, &head), Compression::Plain)]),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    None,
    Zip,
    Gzip,
    Parquet,
}

/// Detects the container by content first, because a name can be anything, then by name, so that a
/// damaged file is reported as damaged instead of being read as CSV.
fn container(name: &str, head: &[u8]) -> Container {
    let ends = |suffix: &str| name.to_ascii_lowercase().ends_with(suffix);
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") || ends(".zip") {
        Container::Zip
    } else if head.starts_with(b"\x1f\x8b") || ends(".gz") {
        Container::Gzip
    } else if head.starts_with(b"PAR1") || ends(".parquet") {
        Container::Parquet
    } else {
        Container::None
    }
}

fn format_of(name: &str, head: &[u8]) -> Format {
    let ends = |suffix: &str| name.to_ascii_lowercase().ends_with(suffix);
    let json = [".ndjson", ".jsonl", ".json"].iter().any(|suffix| ends(suffix));
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    if json || (!ends(".csv") && head.trim_ascii_start().starts_with(b"{")) {
        Format::Ndjson
    } else {
        Format::Csv
    }
}

fn gunzip_head(file: File) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(512);
    flate2::read::MultiGzDecoder::new(file).take(512).read_to_end(&mut head)?;
    Ok(head)
}

fn zip_members(path: &Path, name: &str, file: File) -> Result<Vec<Input>, LoadError> {
    let bad = |error: zip::result::ZipError| LoadError::BadZip {
        file: name.to_owned(),
        reason: error.to_string(),
    };
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(bad)?;
    let mut inputs = Vec::new();
    for index in 0..archive.len() {
        let member = archive.by_index_raw(index).map_err(bad)?;
        let member_name = String::from_utf8_lossy(member.name_raw()).into_owned();
        // macOS adds metadata files to every archive.
        if member.is_dir() || member_name.starts_with("__MACOSX/") {
            continue;
        }
        let file = format!("{name}:{member_name}");
        let unsupported = |reason: &str| LoadError::UnsupportedMember {
            file: file.clone(),
            reason: reason.to_owned(),
        };
        if member.encrypted() {
            return Err(unsupported("encrypted"));
        }
        let deflated = match member.compression() {
            zip::CompressionMethod::Stored => false,
            zip::CompressionMethod::Deflated => true,
            other => return Err(unsupported(&format!("compressed with {other}"))),
        };
        if member_name.to_ascii_lowercase().ends_with(".parquet") {
            return Err(unsupported("a Parquet file in an archive cannot be read"));
        }
        if member.size() == 0 {
            return Err(LoadError::Empty { file });
        }
        let start = member.data_start().ok_or_else(|| unsupported("no data"))?;
        inputs.push(Input {
            path: path.to_owned(),
            format: format_of(&member_name, &[]),
            compression: Compression::Zip {
                start,
                length: member.compressed_size(),
                deflated,
                crc: member.crc32(),
            },
            size: member.compressed_size(),
            name: file,
        });
    }
    if inputs.is_empty() {
        return Err(LoadError::EmptyZip { file: name.to_owned() });
    }
    Ok(inputs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_detected_by_content_then_name() {
        for (name, head, expected) in [
            ("x.csv", &b"PK\x03\x04"[..], Container::Zip),
            ("x.zip", b"a,b", Container::Zip),
            ("x", b"\x1f\x8b\x08", Container::Gzip),
            ("x.csv.gz", b"a,b", Container::Gzip),
            ("x", b"PAR1", Container::Parquet),
            ("X.PARQUET", b"junk", Container::Parquet),
            ("x.csv", b"a,b", Container::None),
        ] {
            assert_eq!(container(name, head), expected, "{name}");
        }
    }

    #[test]
    fn formats_are_detected_by_name_then_content() {
        for (name, head, expected) in [
            ("x.csv", &b"{"[..], Format::Csv),
            ("x.ndjson", b"a", Format::Ndjson),
            ("x.JSONL", b"", Format::Ndjson),
            ("x.txt", b" {\"a\":1}", Format::Ndjson),
            ("x.txt", b"\xef\xbb\xbf{}", Format::Ndjson),
            ("x.txt", b"a,b", Format::Csv),
        ] {
            assert_eq!(format_of(name, head), expected, "{name}");
        }
    }
}
