//! Start errors of nodes, with exit status and remedy.

use tidewater_compactor_node::StartError as CompactorStartError;
use tidewater_data_node::node::StartError as DataStartError;
use tidewater_meta_node::MetaError;
use tidewater_meta_node::machine::StateError;
use tidewater_raft_store::IdentityError;
use tidewater_region_engine::storage::StoreError;
use tidewater_rpc::RegisterError;

use crate::exit::{Exit, Failure, exit_of};

/// Returns the failure for an error of a data directory.
pub(crate) fn directory_failure(error: &IdentityError) -> Failure {
    let (exit, advice) = match error {
        IdentityError::WrongRole { .. } | IdentityError::WrongNode { .. } => {
            (Exit::Conflict, "choose another --data-dir, or start the node that owns it")
        }
        IdentityError::WrongCluster { .. } => {
            (Exit::Conflict, "choose another --data-dir, or join the cluster that it belongs to")
        }
        IdentityError::InUse { .. } => {
            (Exit::Conflict, "stop that process first, or choose another --data-dir")
        }
        IdentityError::NewerFormat { .. } => (Exit::Conflict, "run the release that wrote it"),
        _ => (Exit::Other, "check the directory and its disk"),
    };
    Failure::new(exit, format!("{error}\n  {advice}"))
}

/// Returns the failure for an error of the registration with the meta group.
pub(crate) fn registration_failure(error: RegisterError) -> Failure {
    match error {
        RegisterError::NoAddress => Failure::usage("--meta: name at least one meta node"),
        RegisterError::Refused(ref refusal) => {
            Failure::new(exit_of(refusal.reason), error.to_string())
        }
    }
}

/// Returns the failure for an error of the object store.
fn store_failure(error: &StoreError) -> Failure {
    Failure::new(
        if error.is_wrong_url() { Exit::Usage } else { Exit::Unavailable },
        format!(
            "{error}\n  check --object-store (file:///DIR, s3://BUCKET/PREFIX), its credentials \
             (AWS_*), and that it is writable"
        ),
    )
}

/// Returns the failure for a start error of a data node.
pub(crate) fn data_failure(error: DataStartError) -> Failure {
    match error {
        DataStartError::Directory(error) => directory_failure(&error),
        DataStartError::Register(error) => registration_failure(error),
        DataStartError::Store(error) => store_failure(&error),
        DataStartError::InvalidReply(_)
        | DataStartError::Group(_)
        | DataStartError::Interrupted(_) => Failure::other(error.to_string()),
    }
}

/// Returns the failure for a start error of a meta node.
pub(crate) fn meta_failure(error: &MetaError) -> Failure {
    match error {
        MetaError::Options(error) => Failure::usage(error.to_string()),
        MetaError::Directory(error) => directory_failure(error),
        MetaError::AlreadyBootstrapped { .. } => Failure::new(Exit::Conflict, error.to_string()),
        MetaError::PeerRefused { refusal, .. } => {
            Failure::new(exit_of(refusal.reason), error.to_string())
        }
        MetaError::State(StateError::Release(_)) => Failure::new(Exit::Conflict, error.to_string()),
        MetaError::State(_) | MetaError::Raft(_) | MetaError::Disk(_) | MetaError::Task(_) => {
            Failure::other(error.to_string())
        }
    }
}

/// Returns the failure for a start error of a compactor node.
pub(crate) fn compactor_failure(error: CompactorStartError) -> Failure {
    match error {
        CompactorStartError::Store(error) => store_failure(&error),
        CompactorStartError::Register(error) => registration_failure(error),
        CompactorStartError::InvalidReply(_) => Failure::other(error.to_string()),
    }
}
