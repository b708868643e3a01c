//! What a data group's snapshot file holds: the registry with its producers, membership, and the
//! rows that are not flushed. One index for all of it: that at which the state machine stood.
//!
//! Runs are immutable, so taking a [`SnapshotView`] copies pointers; writing it out is slow and
//! happens elsewhere.

use std::io::{self, Read, Write};

use bytes::Bytes;
use prost::Message;
use tidewater_common::ids::{GroupId, RegionId};
use tidewater_proto::v1::{self, group_snapshot_record::Record};
use tidewater_raft_store::types::{LogId, SnapshotMeta, StoredMembership, wire};
use tidewater_region_engine::RunImage;

use super::state::{GroupState, RegionState};

#[cfg(test)]
mod tests;

/// Format of the file; a greater one was written by a newer release.
const FORMAT: u32 = 1;
/// How large records get.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    // About the bytes of rows in a record: what is held in memory beside the rows themselves while a
    // snapshot is written or read, a few times over.
    piece: usize,
    // No record is larger: what prost can take.
    record: u64,
}

const SIZES: Sizes = Sizes { piece: 16 * 1024 * 1024, record: 2 * 1024 * 1024 * 1024 };

/// A group at one index, by pointer.
#[derive(Debug)]
pub struct SnapshotView {
    /// Whose state it is.
    pub group: GroupId,
    /// The last entry applied.
    pub applied: Option<LogId>,
    /// The last membership applied.
    pub membership: StoredMembership,
    /// The registry.
    pub state: GroupState,
    /// Rows that are not flushed.
    pub runs: Vec<(RegionId, RunImage)>,
}

impl SnapshotView {
    /// What openraft wants to know of it.
    pub fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() }
    }

    /// Writes the content of the file. Blocking.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        self.write_sized(out, SIZES)
    }

    fn write_sized(&self, out: &mut impl Write, sizes: Sizes) -> io::Result<()> {
        let mut put = |record| put(out, record, sizes.record);
        put(Record::Header(v1::GroupSnapshotHeader {
            format: FORMAT,
            group_id: self.group.get(),
            applied: self.applied.as_ref().map(wire::log_id_to_wire),
            membership: Some(wire::stored_membership_to_wire(&self.membership)),
            dropped: self.state.dropped.iter().map(|region| region.get()).collect(),
        }))?;
        for region in self.state.regions.values() {
            put(Record::Region(region.to_wire()))?;
        }
        let mut records = 0;
        for (region, image) in &self.runs {
            let mut continues = false;
            // One after the other: only one piece is held encoded.
            for piece in image.pieces(sizes.piece) {
                let (region_id, image) = (region.get(), piece.encode().map_err(io::Error::other)?);
                put(Record::Run(v1::GroupSnapshotRun { region_id, image, continues }))?;
                continues = true;
                records += 1;
            }
        }
        let regions = u32::try_from(self.state.regions.len()).unwrap_or(u32::MAX);
        put(Record::End(v1::GroupSnapshotEnd { regions, runs: records }))
    }

    /// Reads the content of a file. Blocking.
    pub fn read(input: &mut impl Read) -> io::Result<Self> {
        let mut view = read_header(input)?;
        let (mut regions, mut records) = (0u32, 0u64);
        // The run that is being read, piece by piece.
        let mut pieces: Vec<RunImage> = Vec::new();
        let mut of = RegionId(0);
        loop {
            match get(input)? {
                Record::Header(_) => return Err(damaged("a second header")),
                Record::Region(region) => {
                    regions += 1;
                    let region = RegionState::from_wire(region).map_err(damaged)?;
                    view.state.regions.insert(region.descriptor.region_id, region);
                }
                Record::Run(run) => {
                    records += 1;
                    let region = RegionId(run.region_id);
                    if run.continues && (pieces.is_empty() || region != of) {
                        return Err(damaged("a run that continues another one's"));
                    }
                    if !run.continues {
                        view.runs.extend(RunImage::join(&pieces).map(|image| (of, image)));
                        pieces.clear();
                        of = region;
                    }
                    pieces.push(RunImage::decode(&run.image).map_err(damaged)?);
                }
                Record::End(end) => {
                    view.runs.extend(RunImage::join(&pieces).map(|image| (of, image)));
                    if end.regions != regions || end.runs != records {
                        return Err(damaged("regions or runs are missing"));
                    }
                    return Ok(view);
                }
            }
        }
    }
}

/// Reads only what a snapshot covers. Blocking.
pub fn read_meta(input: &mut impl Read) -> io::Result<SnapshotMeta> {
    read_header(input).map(|view| view.meta())
}

fn read_header(input: &mut impl Read) -> io::Result<SnapshotView> {
    let Record::Header(header) = get(input)? else {
        return Err(damaged("it does not begin with a header"));
    };
    if header.format > FORMAT {
        return Err(damaged(format!(
            "it has format {}, this release reads up to {FORMAT}",
            header.format
        )));
    }
    let membership = match header.membership {
        Some(membership) => wire::stored_membership_from_wire(membership).map_err(damaged)?,
        None => StoredMembership::default(),
    };
    Ok(SnapshotView {
        group: GroupId(header.group_id),
        applied: header.applied.as_ref().map(wire::log_id_from_wire),
        membership,
        state: GroupState {
            dropped: header.dropped.into_iter().map(RegionId).collect(),
            ..GroupState::default()
        },
        runs: Vec::new(),
    })
}

fn put(out: &mut impl Write, record: Record, most: u64) -> io::Result<()> {
    let record = v1::GroupSnapshotRecord { record: Some(record) };
    // One that could not be read back must not let the log below it be purged.
    if record.encoded_len() as u64 > most {
        return Err(io::Error::other(format!(
            "a record of {} bytes is too large for a snapshot",
            record.encoded_len()
        )));
    }
    let bytes = record.encode_to_vec();
    out.write_all(&(bytes.len() as u64).to_le_bytes())?;
    out.write_all(&bytes)
}

fn get(input: &mut impl Read) -> io::Result<Record> {
    let mut length = [0; 8];
    input.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > SIZES.record {
        return Err(damaged(format!("a record of {length} bytes")));
    }
    // Grows as bytes come: a damaged length does not allocate what is not there.
    let mut bytes = Vec::new();
    input.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != length {
        return Err(damaged("it ends within a record"));
    }
    v1::GroupSnapshotRecord::decode(Bytes::from(bytes))
        .map_err(damaged)?
        .record
        .ok_or_else(|| damaged("a record of a kind that this release does not know"))
}

fn damaged(detail: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("group snapshot: {detail}"))
}
