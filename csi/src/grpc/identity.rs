//! The Identity service: who we are, and whether we can work.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tonic::{Request, Response, Status};

use crate::DRIVER;
use crate::ports::Directory;
use crate::proto::csi::identity_server::Identity;
use crate::proto::csi::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest, GetPluginInfoResponse,
    ProbeRequest, ProbeResponse,
};
use crate::storage::Storage;

/// How long Ceph may take to say anything.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether the plugin can publish at this moment.
#[derive(Clone)]
pub struct Readiness {
    storage: Arc<Storage>,
    directory: Arc<dyn Directory>,
}

impl Readiness {
    /// Of a plugin that needs these.
    pub fn new(storage: Arc<Storage>, directory: Arc<dyn Directory>) -> Self {
        Self { storage, directory }
    }

    /// Asks Ceph and the directory.
    ///
    /// # Errors
    /// What is missing, in words.
    pub async fn check(&self) -> Result<(), String> {
        self.directory.databases().map_err(|error| error.to_string())?;
        // One operation. There is no such clone, and Ceph says so.
        let asked = self.storage.run(|store| match store.find_clone(&"probe".parse()?) {
            Ok(_) | Err(aldaas_golden::Error::NoClone(_) | aldaas_golden::Error::Foreign(_)) => Ok(()),
            Err(error) => Err(error),
        });
        match timeout(PATIENCE, asked).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("Ceph did not answer within {} s", PATIENCE.as_secs())),
        }
    }
}

/// The Identity service.
pub struct IdentityService {
    readiness: Readiness,
}

impl IdentityService {
    /// Says what `readiness` says.
    pub fn new(readiness: Readiness) -> Self {
        Self { readiness }
    }
}

#[tonic::async_trait]
impl Identity for IdentityService {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: DRIVER.to_owned(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        }))
    }

    /// None: no controller, no topology. Every node that reaches Ceph is as good as another.
    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        Ok(Response::new(GetPluginCapabilitiesResponse::default()))
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        let ready = self.readiness.check().await;
        if let Err(why) = &ready {
            tracing::warn!(why, "not ready");
        }
        Ok(Response::new(ProbeResponse { ready: Some(ready.is_ok()) }))
    }
}
