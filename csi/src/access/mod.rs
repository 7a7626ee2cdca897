//! Who may clone what: one pure decision over what Kubernetes' objects say.
//!
//! It is taken here, on the node, for every volume: anybody who may make pods can write one by hand. The webhook says the same
//! earlier and more kindly.

use std::sync::Arc;

use aldaas_api::DatabaseName;
use aldaas_api::context::{PodRef, VolumeContext, Wanted};
use tonic::Code;

use crate::ports::{Away, Database, Directory, Selector};

#[cfg(test)]
mod tests;

/// Names that are further away from what was written are no help: letters that differ.
const NEAR: usize = 3;

/// Who aldaas itself is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// The namespace that it runs in.
    pub namespace: String,
    /// The service account of its ingest Jobs there.
    pub ingest_account: String,
}

/// Why a pod may not have what it asks for, in words for the one who wrote the pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Nobody knows the database.
    #[error("there is no database {name:?}{hint}", name = .name.as_str(), hint = did_you_mean(.near.as_ref()))]
    NoDatabase {
        /// What was asked for.
        name: DatabaseName,
        /// What may have been meant, among those that this namespace may clone.
        near: Option<DatabaseName>,
    },
    /// The namespace is not among those that may.
    #[error("namespace {namespace} may not clone database {database}: {}", ask(.contact.as_deref(), .database))]
    NoAccess {
        /// The pod's namespace.
        namespace: String,
        /// The database.
        database: DatabaseName,
        /// Whom to ask.
        contact: Option<String>,
    },
    /// A volume that only aldaas' ingest may have.
    #[error(
        "{kind} volumes are for aldaas' own ingest; service account {account} of namespace {namespace} may not have one: \
         ask for a clone with the attribute \"db\""
    )]
    OwnOnly {
        /// `build` or `candidate`.
        kind: &'static str,
        /// The pod's namespace.
        namespace: String,
        /// The pod's service account.
        account: String,
    },
    /// The pod's namespace is so new that it was not seen yet.
    #[error("namespace {0} is not known here yet")]
    UnknownNamespace(String),
    /// Nothing is known yet.
    #[error("who may clone what is not known yet: {0}")]
    Away(#[from] Away),
}

impl Denied {
    /// The gRPC code that says so. What can only be waited for is answered so that kubelet asks again.
    pub fn code(&self) -> Code {
        match self {
            Self::NoDatabase { .. } => Code::NotFound,
            Self::NoAccess { .. } | Self::OwnOnly { .. } => Code::PermissionDenied,
            Self::UnknownNamespace(_) | Self::Away(_) => Code::Unavailable,
        }
    }
}

fn did_you_mean(near: Option<&DatabaseName>) -> String {
    near.map_or_else(String::new, |near| format!(": did you mean {:?}?", near.as_str()))
}

fn ask(contact: Option<&str>, database: &DatabaseName) -> String {
    match contact {
        Some(contact) => format!("ask {contact}"),
        None => format!("ask whoever may change spec.access.namespaceSelector of Database {database}"),
    }
}

/// The database that a pod's volume is of, if the pod may have it.
///
/// # Errors
/// When it may not, or nothing is known of it.
pub fn decide(
    context: &VolumeContext,
    directory: &dyn Directory,
    own: &Own,
) -> Result<Arc<Database>, Denied> {
    let (pod, name) = (&context.pod, context.wanted.database());
    match &context.wanted {
        Wanted::Clone(_) => {}
        Wanted::Build(_) => only_own("build", pod, own)?,
        Wanted::Candidate(_) => only_own("candidate", pod, own)?,
    }
    let Some(database) = directory.database(name)? else {
        return Err(Denied::NoDatabase { name: name.clone(), near: nearest(name, pod, directory, own)? });
    };
    if !matches!(context.wanted, Wanted::Clone(_)) {
        return Ok(database);
    }
    match may_clone(&database, &pod.namespace, directory, own)? {
        Some(true) => Ok(database),
        None => Err(Denied::UnknownNamespace(pod.namespace.clone())),
        Some(false) => Err(Denied::NoAccess {
            namespace: pod.namespace.clone(),
            database: name.clone(),
            contact: database.contact.clone(),
        }),
    }
}

/// A service account's name means nothing without its namespace: anybody may have one of that name in their own.
fn only_own(kind: &'static str, pod: &PodRef, own: &Own) -> Result<(), Denied> {
    if pod.namespace == own.namespace && pod.service_account == own.ingest_account {
        return Ok(());
    }
    let (namespace, account) = (pod.namespace.clone(), pod.service_account.clone());
    Err(Denied::OwnOnly { kind, namespace, account })
}

/// Whether pods of this namespace may clone it; none when the namespace's labels are needed and not known.
fn may_clone(
    database: &Database,
    namespace: &str,
    directory: &dyn Directory,
    own: &Own,
) -> Result<Option<bool>, Away> {
    match &database.namespaces {
        None => Ok(Some(namespace == own.namespace)),
        Some(every) if *every == Selector::default() => Ok(Some(true)),
        Some(selector) => Ok(directory.namespace(namespace)?.map(|labels| selector.matches(&labels))),
    }
}

/// The nearest name of a database that this namespace may clone: others are none of its business.
fn nearest(
    name: &DatabaseName,
    pod: &PodRef,
    directory: &dyn Directory,
    own: &Own,
) -> Result<Option<DatabaseName>, Away> {
    let mut near: Vec<_> = directory
        .databases()?
        .into_iter()
        .map(|other| (strsim::damerau_levenshtein(name.as_str(), other.as_str()), other))
        .filter(|(distance, _)| *distance <= NEAR)
        .collect();
    near.sort();
    for (_, other) in near {
        let Some(database) = directory.database(&other)? else { continue };
        if may_clone(&database, &pod.namespace, directory, own)? == Some(true) {
            return Ok(Some(other));
        }
    }
    Ok(None)
}
