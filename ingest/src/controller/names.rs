//! What stands on our objects in Kubernetes.

/// On a Database: makes an ingest now, of the newest dump (`now`) or of the object with this key.
pub const INGEST: &str = "aldaas/ingest";
/// On a GoldenImage: deleting it retires its image first.
pub const FINALIZER: &str = "aldaas.dev/retire";
/// On Jobs and their pods: the golden image.
pub const IMAGE: &str = "aldaas.dev/image";
/// On Jobs, their pods and golden images: the database.
pub const DATABASE: &str = "aldaas.dev/database";
/// On Jobs and their pods: `build` or `check`.
pub const TASK: &str = "aldaas.dev/task";
/// On Jobs: which try it is.
pub const ATTEMPT: &str = "aldaas.dev/attempt";
/// On Jobs: the dump, as JSON.
pub const SOURCE: &str = "aldaas.dev/source";
/// Who writes our fields, in server-side apply.
pub const MANAGER: &str = "aldaas-ingest";
/// The container in which `aldaas-restore` runs.
pub const CONTAINER: &str = "engine";
/// The key of the manifest in its ConfigMap.
pub const MANIFEST: &str = "manifest.json";
