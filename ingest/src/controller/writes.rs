//! Writes to the API server that may be repeated.

use aldaas_api::kinds::Database;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource as _};
use serde_json::json;

use super::names::MANAGER;
use super::runner::ActError;

/// Server-side apply of a whole status: what is not said any more goes. None: the object is gone.
///
/// # Errors
/// When the API server does not take it.
pub async fn apply_status<K>(
    api: &Api<K>,
    kind: &str,
    name: &str,
    status: &impl serde::Serialize,
) -> Result<Option<K>, kube::Error>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let version = Database::api_version(&());
    let object =
        json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name }, "status": status });
    let params = PatchParams::apply(MANAGER).force();
    match api.patch_status(name, &params, &Patch::Apply(&object)).await {
        Ok(written) => Ok(Some(written)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

/// What was to be made is there already: so it should be.
///
/// # Errors
/// When it could not be made for another reason.
pub fn exists_is_fine<T>(made: Result<T, kube::Error>) -> Result<(), ActError> {
    match made {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}

/// What was to be removed is gone already: so it should be.
///
/// # Errors
/// When it could not be removed for another reason.
pub fn missing_is_fine<T>(removed: Result<T, impl Into<ActError>>) -> Result<(), ActError> {
    match removed.map_err(Into::into) {
        Err(ActError::Kube(kube::Error::Api(status))) if status.code == 404 => Ok(()),
        other => other.map(drop),
    }
}
