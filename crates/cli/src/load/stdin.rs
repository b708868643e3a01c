//! Rows from standard input, written as `-`.
//!
//! A load reads its inputs more than once, so that standard input is copied to a temporary file first.
//! The file has no name: it disappears with the process.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tidewater_readers::error::LoadError;
use tidewater_readers::input::{Input, inspect, inspect_as};

/// Name of standard input in messages.
const NAME: &str = "stdin";

const BUFFER: usize = 256 * 1024;

/// Time between lines of progress.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Standard input that cannot be read into a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StdinError {
    #[error("`-` occurs {0} times among the files: standard input can be read only once")]
    Twice(usize),
    #[error("standard input cannot be read: {0}")]
    Read(io::Error),
    #[error(
        "standard input cannot be copied to a temporary file in {}: {source}: set TMPDIR to a \
         directory with more space",
        directory.display()
    )]
    Write { directory: PathBuf, source: io::Error },
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// Copy of standard input, which exists as long as this value.
#[derive(Debug)]
pub(crate) struct Spool(File);

/// Inspects all files; reads standard input for `-`. Needs no table, so that a missing file is reported
/// first.
pub(crate) fn inspect_inputs(
    paths: &[PathBuf],
    stdin: impl Read,
) -> Result<(Vec<Input>, Option<Spool>), StdinError> {
    let is_stdin = |path: &Path| path == Path::new("-");
    let times = paths.iter().filter(|path| is_stdin(path)).count();
    if times > 1 {
        return Err(StdinError::Twice(times));
    }
    let mut inspected = Vec::with_capacity(paths.len());
    for path in paths {
        inspected.push(if is_stdin(path) { Vec::new() } else { inspect(path)? });
    }
    let mut spool = None;
    if let Some(place) = paths.iter().position(|path| is_stdin(path)) {
        let (copy, inputs) = spooled(stdin)?;
        spool = Some(copy);
        if let Some(empty) = inspected.get_mut(place) {
            *empty = inputs;
        }
    }
    Ok((inspected.concat(), spool))
}

fn spooled(stdin: impl Read) -> Result<(Spool, Vec<Input>), StdinError> {
    let failed = |source| StdinError::Write { directory: std::env::temp_dir(), source };
    let mut spool = Spool(tempfile::tempfile().map_err(failed)?);
    copy(stdin, &mut spool.0, failed)?;
    // Opens the file without a name, with an offset of its own for each reader.
    let path = PathBuf::from(format!("/proc/self/fd/{}", spool.0.as_raw_fd()));
    let inputs = inspect_as(&path, NAME.to_owned())?;
    Ok((spool, inputs))
}

fn copy(
    mut stdin: impl Read,
    file: &mut File,
    failed: impl Fn(io::Error) -> StdinError,
) -> Result<(), StdinError> {
    let mut buffer = vec![0; BUFFER];
    let mut bytes = 0_u64;
    let mut last_line = Instant::now();
    loop {
        let length = match stdin.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(StdinError::Read(error)),
        };
        file.write_all(&buffer[..length]).map_err(&failed)?;
        bytes += length as u64;
        if last_line.elapsed() >= LINE_INTERVAL {
            last_line = Instant::now();
            eprintln!("reading standard input: {} MiB", bytes >> 20);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidewater_readers::input::{Compression, Format};

    fn stdin(bytes: &[u8]) -> Result<(Vec<Input>, Option<Spool>), StdinError> {
        inspect_inputs(&["-".into()], bytes)
    }

    #[test]
    fn format_of_stdin_is_detected_by_content() {
        let gzip = {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(b"{\"a\":1}\n").unwrap();
            encoder.finish().unwrap()
        };
        for (bytes, format, compression) in [
            (&b"a,b\n1,2\n"[..], Format::Csv, Compression::Plain),
            (b" {\"a\":1}\n", Format::Ndjson, Compression::Plain),
            (b"PAR1", Format::Parquet, Compression::Plain),
            (&gzip, Format::Ndjson, Compression::Gzip),
        ] {
            let (inputs, _spool) = stdin(bytes).unwrap();
            let [input] = inputs.as_slice() else { panic!("{inputs:?}") };
            assert_eq!((input.format, input.compression), (format, compression));
            assert_eq!((input.name.as_str(), input.size), ("stdin", bytes.len() as u64));
            for _ in 0..2 {
                assert_eq!(std::fs::read(&input.path).unwrap(), bytes, "each reader starts anew");
            }
        }
    }

    #[test]
    fn unusable_stdin_is_rejected_with_a_reason() {
        for (bytes, part) in [
            (&b""[..], "stdin: the file is empty"),
            (b"\x1f\x8b\x08", "stdin: the compressed data is damaged or truncated"),
            (b"PK\x03\x04 and no more", "stdin: not a complete zip archive"),
        ] {
            let message = stdin(bytes).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn stdin_is_accepted_once() {
        let error = inspect_inputs(&["-".into(), "-".into()], &b"a\n1\n"[..]).unwrap_err();
        assert!(matches!(error, StdinError::Twice(2)), "{error}");
    }

    #[test]
    fn missing_file_is_reported_before_stdin_is_read() {
        struct Untouched;
        impl Read for Untouched {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                panic!("standard input was read");
            }
        }
        let error = inspect_inputs(&["-".into(), "/nowhere.csv".into()], Untouched).unwrap_err();
        assert!(matches!(error, StdinError::Load(LoadError::NotFound { .. })), "{error}");
    }

    #[test]
    fn unreadable_stdin_is_reported() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("unplugged"))
            }
        }
        let error = inspect_inputs(&["-".into()], Broken).unwrap_err();
        assert!(matches!(&error, StdinError::Read(_)), "{error}");
    }
}
