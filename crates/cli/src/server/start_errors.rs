//! Why a node did not start, as a status and what to do.

use tidewater_compactor_node::StartError as CompactorStartError;
use tidewater_data_node::node::StartError as DataStartError;
use tidewater_meta_node::MetaError;
use tidewater_raft_store::{IdentityError, RegisterError};
use tidewater_region_engine::storage::StoreError;

use crate::exit::{Exit, Failure, exit_of};

/// Of a data directory.
pub(crate) fn of_directory(error: &IdentityError) -> Failure {
    let (exit, advice) = match error {
        IdentityError::WrongRole { .. } | IdentityError::WrongNode { .. } => {
            (Exit::Conflict, "choose another --data-dir, or start the node that it belongs to")
        }
        IdentityError::WrongCluster { .. } => {
            (Exit::Conflict, "choose another --data-dir, or the cluster that it belongs to")
        }
        IdentityError::InUse { .. } => {
            (Exit::Conflict, "stop that process first, or choose another --data-dir")
        }
        IdentityError::NewerFormat { .. } => (Exit::Conflict, "run the release that wrote it"),
        _ => (Exit::Other, "check the directory and its disk"),
    };
    Failure::new(exit, format!("{error}\n  {advice}"))
}

/// Of a registration.
pub(crate) fn of_registration(error: RegisterError) -> Failure {
    match error {
        RegisterError::NoAddress => Failure::usage("--meta: name at least one meta node"),
        RegisterError::Refused(ref refusal) => {
            Failure::new(exit_of(refusal.reason), error.to_string())
        }
    }
}

/// Of an object store.
fn of_store(error: &StoreError) -> Failure {
    Failure::new(
        if error.is_wrong_url() { Exit::Usage } else { Exit::Unavailable },
        format!(
            "{error}\n  check --object-store (file:///DIR, s3://BUCKET/PREFIX), its credentials \
             (AWS_*), and that it can be written to"
        ),
    )
}

/// Of a data node.
pub(crate) fn of_data(error: DataStartError) -> Failure {
    match error {
        DataStartError::Directory(error) => of_directory(&error),
        DataStartError::Register(error) => of_registration(error),
        DataStartError::Store(error) => of_store(&error),
        DataStartError::InvalidReply(_)
        | DataStartError::Group(_)
        | DataStartError::Interrupted(_) => Failure::other(error.to_string()),
    }
}

/// Of a meta node.
pub(crate) fn of_meta(error: &MetaError) -> Failure {
    match error {
        MetaError::Options(error) => Failure::usage(error.to_string()),
        MetaError::Directory(error) => of_directory(error),
        MetaError::AlreadyBootstrapped { .. } => Failure::new(Exit::Conflict, error.to_string()),
        MetaError::PeerRefused { refusal, .. } => {
            Failure::new(exit_of(refusal.reason), error.to_string())
        }
        MetaError::State(_) | MetaError::Raft(_) | MetaError::Disk(_) | MetaError::Task(_) => {
            Failure::other(error.to_string())
        }
    }
}

/// Of a compactor node.
pub(crate) fn of_compactor(error: CompactorStartError) -> Failure {
    match error {
        CompactorStartError::Store(error) => of_store(&error),
        CompactorStartError::Register(error) => of_registration(error),
        CompactorStartError::InvalidReply(_) => Failure::other(error.to_string()),
    }
}
