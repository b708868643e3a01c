use tempfile::TempDir;

use super::*;

fn written(dir: &Path, content: &[u8]) -> SnapshotFile {
    let mut writer = SnapshotWriter::create(dir.join("s")).unwrap();
    for part in content.chunks(100_000) {
        writer.write_all(part).unwrap();
    }
    writer.finish().unwrap()
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 31 % 251) as u8).collect()
}

#[test]
fn snapshot_content_survives_writing_and_reading() {
    let dir = TempDir::new().unwrap();
    for bytes in [0, 1, 100, BUFFER_BYTES, 3 * BUFFER_BYTES + 7] {
        let content = content(bytes);
        let file = written(dir.path(), &content);
        assert_eq!(file.length(), bytes as u64);
        assert_eq!(SnapshotFile::open(dir.path().join("s")).unwrap(), file);
        let mut read = Vec::new();
        file.reader().unwrap().read_to_end(&mut read).unwrap();
        assert!(read == content, "{bytes}");
    }
}

#[test]
fn snapshot_trailer_is_frozen() {
    let dir = TempDir::new().unwrap();
    written(dir.path(), b"123456789");
    let bytes = fs::read(dir.path().join("s")).unwrap();
    assert_eq!(bytes, b"123456789TWS1\x83\x92\x06\xe3\x09\0\0\0\0\0\0\0");
}

#[test]
fn every_snapshot_damage_is_recognized() {
    let dir = TempDir::new().unwrap();
    let file = written(dir.path(), &content(1_000));
    let whole = fs::read(file.path()).unwrap();
    let damaged = |bytes: &[u8]| {
        fs::write(file.path(), bytes).unwrap();
        matches!(SnapshotFile::open(file.path()), Err(SnapshotFileError::Damaged { .. }))
    };
    for at in [0, 500, 999, 1_000, 1_004, 1_008, 1_015] {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        assert!(damaged(&flipped), "byte {at} flipped");
    }
    for length in [0, 15, 16, 999, 1_015] {
        assert!(damaged(&whole[..length]), "cut to {length}");
    }
    fs::write(file.path(), &whole).unwrap();
    assert!(SnapshotFile::open(file.path()).is_ok());
}

#[test]
fn snapshot_reader_detects_damage_at_the_end() {
    let dir = TempDir::new().unwrap();
    let file = written(dir.path(), &content(1_000));
    let mut bytes = fs::read(file.path()).unwrap();
    bytes[10] ^= 1;
    fs::write(file.path(), bytes).unwrap();
    let mut reader = file.reader().unwrap();
    let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(matches!(reader.take_damage(), Some(SnapshotFileError::Damaged { .. })));
}

#[test]
fn unfinished_snapshot_file_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let mut writer = SnapshotWriter::create(dir.path().join("s")).unwrap();
    writer.write_all(b"half").unwrap();
    drop(writer);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    // The leftover of a crash.
    fs::write(dir.path().join("s.x.partial"), b"half").unwrap();
    written(dir.path(), b"whole");
    assert_eq!(remove_leftovers(dir.path()).unwrap(), 1);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn snapshot_file_can_be_renamed_and_removed() {
    let dir = TempDir::new().unwrap();
    let file = written(dir.path(), b"x").rename(dir.path().join("t")).unwrap();
    assert_eq!(SnapshotFile::stat(dir.path().join("t")).unwrap(), file);
    file.remove().unwrap();
    let missing = SnapshotFile::stat(dir.path().join("t")).unwrap_err();
    assert!(matches!(missing, SnapshotFileError::Io { action: "open", .. }));
}
