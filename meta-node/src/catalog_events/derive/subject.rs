//! Subjects of procedures: the routes, groups and keys that they are about.

use prost::Message;
use tidewater_proto::v1::{self, ProcedureKind};

use super::known_kind;
use crate::catalog::Procedure;

/// Bytes of a key in a subject.
const KEY_BYTES: usize = 32;

/// Returns the subject of a procedure that has begun; `None`: its table is its only subject.
pub(super) fn subject(procedure: &Procedure) -> Option<String> {
    let arguments = procedure.arguments.clone();
    match known_kind(procedure)? {
        ProcedureKind::Split => {
            let request = v1::SplitRouteRequest::decode(arguments).ok()?;
            Some(format!("route {} at key {}", request.route_id, shown(&request.split_key)))
        }
        ProcedureKind::Move => {
            let request = v1::MoveRouteRequest::decode(arguments).ok()?;
            Some(format!("route {} to group {}", request.route_id, request.target_group_id))
        }
        ProcedureKind::Merge => {
            let request = v1::MergeRoutesRequest::decode(arguments).ok()?;
            Some(format!("routes {} and {}", request.route_id, request.neighbour_id))
        }
        ProcedureKind::Refresh => {
            let plan = v1::RefreshPlan::decode(procedure.plan.clone()).ok()?;
            Some(format!("refresh {}", plan.generation))
        }
        _ => None,
    }
}

/// Shows the begin of a key in hexadecimal digits.
fn shown(key: &[u8]) -> String {
    let digits = key.iter().take(KEY_BYTES).map(|byte| format!("{byte:02x}"));
    let end = if key.len() > KEY_BYTES { "..." } else { "" };
    format!("0x{}{end}", digits.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_keys_are_cut() {
        assert_eq!(shown(&[0x40, 1]), "0x4001");
        assert_eq!(shown(&[7; KEY_BYTES]), format!("0x{}", "07".repeat(KEY_BYTES)));
        assert_eq!(shown(&[7; 2_000]), format!("0x{}...", "07".repeat(KEY_BYTES)));
    }
}
