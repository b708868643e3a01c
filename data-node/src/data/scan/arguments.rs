//! Arguments of a scan: checks, and conversion to the engine's options.

use tidewater_common::ids::ColumnId;
use tidewater_common::keys::KeyRange;
use tidewater_common::read_arguments::{ReadArgumentError, check_predicates, check_projection};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason, ScanRequest};
use tidewater_region_engine::read::memory::ScanAccount;
use tidewater_region_engine::{CompareOp, Predicate, RowOrder, ScanOptions};

/// Maximum number of rows of a batch.
const BATCH_ROWS: usize = 8_192;
/// Memory of a value of a predicate, in addition to its text.
const VALUE_BYTES: usize = 320;
/// Arguments up to this size are not charged: most are.
const FREE_BYTES: usize = 64 << 10;

/// Checks that the arguments are within the limits; returns the bytes of memory to charge for them.
///
/// # Errors
/// [`Reason::InvalidArgument`].
pub(super) fn check(request: &ScanRequest) -> Result<Option<u64>, Refusal> {
    check_columns(&request.projection)?;
    let texts = check_predicates(&request.predicates).map_err(|error| refusal(&error))?;
    let values: usize = request.predicates.iter().map(|predicate| predicate.values.len()).sum();
    let bytes = texts + values * VALUE_BYTES;
    Ok((bytes > FREE_BYTES).then_some(bytes as u64))
}

/// Checks that a projection names each column once.
///
/// # Errors
/// [`Reason::InvalidArgument`].
pub(in crate::data) fn check_columns(projection: &[u32]) -> Result<(), Refusal> {
    check_projection(projection).map_err(|error| refusal(&error))
}

fn refusal(error: &ReadArgumentError) -> Refusal {
    Refusal::new(Reason::InvalidArgument, error.to_string())
}

/// Returns the engine's options for a request.
///
/// # Errors
/// [`Reason::Unsupported`] for a comparison of a newer release.
pub(super) fn scan_options(
    request: ScanRequest,
    account: ScanAccount,
) -> Result<ScanOptions, Refusal> {
    Ok(ScanOptions {
        projection: request.projection.into_iter().map(ColumnId).collect(),
        range: KeyRange { start: request.start.to_vec(), end: request.end.map(|end| end.to_vec()) },
        predicates: request.predicates.into_iter().map(predicate).collect::<Result<_, _>>()?,
        limit: request.limit,
        batch_rows: BATCH_ROWS,
        as_of: None,
        order: if request.unordered { RowOrder::Any } else { RowOrder::Key },
        account,
        shape: None,
    })
}

fn predicate(wire: v1::Predicate) -> Result<Predicate, Refusal> {
    let op = match v1::CompareOp::try_from(wire.op) {
        Ok(v1::CompareOp::Eq) => CompareOp::Eq,
        Ok(v1::CompareOp::Ne) => CompareOp::Ne,
        Ok(v1::CompareOp::Lt) => CompareOp::Lt,
        Ok(v1::CompareOp::Le) => CompareOp::Le,
        Ok(v1::CompareOp::Gt) => CompareOp::Gt,
        Ok(v1::CompareOp::Ge) => CompareOp::Ge,
        Ok(v1::CompareOp::In) => CompareOp::In,
        Ok(v1::CompareOp::IsNull) => CompareOp::IsNull,
        Ok(v1::CompareOp::IsNotNull) => CompareOp::IsNotNull,
        Ok(v1::CompareOp::Unspecified) | Err(_) => {
            return Err(Refusal::new(
                Reason::Unsupported,
                format!("unknown comparison {} in a predicate", wire.op),
            ));
        }
    };
    Ok(Predicate { column: ColumnId(wire.column_id), op, values: wire.values })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_list(values: usize) -> ScanRequest {
        let values = vec!["1".to_owned(); values];
        let predicate = v1::Predicate { column_id: 1, op: v1::CompareOp::In.into(), values };
        ScanRequest { predicates: vec![predicate], ..Default::default() }
    }

    #[test]
    fn arguments_beyond_the_limits_are_refused() {
        let repeated = ScanRequest { projection: vec![1, 2, 1], ..Default::default() };
        for (request, part) in
            [(repeated, "column id 1 is named twice"), (in_list(10_001), "split the list")]
        {
            let refused = check(&request).unwrap_err();
            assert_eq!(refused.reason, Reason::InvalidArgument);
            assert!(refused.message.contains(part), "{refused}");
        }
    }

    #[test]
    fn long_lists_are_charged() {
        assert_eq!(check(&ScanRequest::default()).unwrap(), None);
        assert_eq!(check(&in_list(100)).unwrap(), None);
        assert_eq!(check(&in_list(10_000)).unwrap(), Some(3_210_000));
    }
}
