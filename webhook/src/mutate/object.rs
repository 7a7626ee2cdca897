//! Pods and what makes pods, as far as the webhook looks at them. All else in them is neither read nor touched.

use aldaas_api::keys::{Keys, Map};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

/// A pod, Deployment, StatefulSet or Job: they have the same outside.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Object {
    /// `metadata`
    #[serde(deserialize_with = "null")]
    pub metadata: Meta,
    /// `spec`, of either.
    #[serde(deserialize_with = "null")]
    pub spec: Spec,
}

/// `metadata`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Meta {
    /// Its name, where it has one already.
    pub name: Option<String>,
    /// What its name will begin with.
    pub generate_name: Option<String>,
    /// Annotations.
    pub annotations: Option<Map>,
    /// Labels.
    pub labels: Option<Map>,
    /// When it was deleted.
    pub deletion_timestamp: Option<String>,
}

impl Meta {
    /// What stands on it.
    pub fn keys(&self) -> Keys<'_> {
        Keys::new(self.annotations.as_ref(), self.labels.as_ref())
    }

    /// What to call it.
    pub fn display_name(&self) -> &str {
        self.name.as_deref().or(self.generate_name.as_deref()).unwrap_or("(no name yet)")
    }
}

/// `spec` of a pod, or of what has a template.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    /// The template, of what makes pods.
    pub template: Option<Template>,
    /// How many pods, of what makes them.
    pub replicas: Option<i64>,
    /// How a Deployment's pods are replaced.
    #[serde(deserialize_with = "null")]
    pub strategy: Strategy,
    /// The containers.
    #[serde(deserialize_with = "null")]
    pub containers: Vec<Container>,
    /// The init containers, sidecars among them.
    #[serde(deserialize_with = "null")]
    pub init_containers: Vec<Container>,
    /// The volumes.
    pub volumes: Option<Vec<Volume>>,
    /// It shares the node's network.
    #[serde(deserialize_with = "null")]
    pub host_network: bool,
    /// The operating system it says it needs.
    pub os: Option<Os>,
    /// Labels of the nodes it may run on.
    #[serde(deserialize_with = "null")]
    pub node_selector: Map,
    /// What holds for all containers.
    #[serde(deserialize_with = "null")]
    pub security_context: SecurityContext,
}

/// What pods are made from.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Template {
    /// `metadata` of its pods.
    pub metadata: Option<Meta>,
    /// `spec` of its pods.
    #[serde(deserialize_with = "null")]
    pub spec: Box<Spec>,
}

/// `strategy` of a Deployment
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Strategy {
    /// `Recreate` or `RollingUpdate`
    #[serde(rename = "type")]
    pub kind: Option<String>,
}

/// `os`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Os {
    /// `linux` or `windows`
    pub name: String,
}

/// A container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its image.
    #[serde(deserialize_with = "null")]
    pub image: String,
    /// `Always` makes an init container a sidecar.
    pub restart_policy: Option<String>,
    /// Its program.
    #[serde(deserialize_with = "null")]
    pub command: Vec<String>,
    /// Its arguments.
    #[serde(deserialize_with = "null")]
    pub args: Vec<String>,
    /// Its environment.
    pub env: Option<Vec<Env>>,
    /// More of it, from elsewhere.
    #[serde(deserialize_with = "null")]
    pub env_from: Vec<IgnoredAny>,
    /// Its mounts.
    pub volume_mounts: Option<Vec<Mount>>,
    /// As whom it runs.
    #[serde(deserialize_with = "null")]
    pub security_context: SecurityContext,
}

/// An environment variable.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Env {
    /// Its name.
    pub name: String,
    /// Its value, where it stands here.
    pub value: Option<String>,
}

/// A mount in a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Mount {
    /// Of which volume.
    pub name: String,
    /// Where.
    pub mount_path: String,
    /// Which part of it.
    pub sub_path: Option<String>,
    /// The same, with variables.
    pub sub_path_expr: Option<String>,
}

/// `securityContext`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SecurityContext {
    /// As whom it runs.
    pub run_as_user: Option<i64>,
}

/// A volume of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// An inline CSI volume.
    pub csi: Option<Csi>,
    /// A directory that lives as long as the pod.
    pub empty_dir: Option<IgnoredAny>,
    /// A claim.
    pub persistent_volume_claim: Option<Claim>,
    /// A claim that lives as long as the pod.
    pub ephemeral: Option<IgnoredAny>,
}

/// `persistentVolumeClaim`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Claim {
    /// The claim's name.
    pub claim_name: String,
}

/// `csi`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Csi {
    /// The driver.
    pub driver: String,
    /// It can't be written to.
    #[serde(deserialize_with = "null")]
    pub read_only: bool,
    /// What it asks for.
    #[serde(deserialize_with = "null")]
    pub volume_attributes: Map,
}

/// JSON's null says what a missing field says.
fn null<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}
