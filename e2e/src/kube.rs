//! The API server, as plain JSON.

use std::process::Command;

use ::kube::{Client, Config, config::Kubeconfig};
use http::{Method, Request};
use serde_json::Value;
use tokio::runtime::Runtime;

/// A connection to the API server. All calls block.
pub struct Kube {
    runtime: Runtime,
    client: Client,
}

/// The path of an object, or with an empty `name` of all of its kind. Cluster-scoped kinds have an empty namespace.
pub fn path(kind: &str, namespace: &str, name: &str) -> String {
    let base = match kind {
        "deployments" | "daemonsets" | "statefulsets" | "replicasets" => "/apis/apps/v1",
        "jobs" => "/apis/batch/v1",
        "databases" | "goldenimages" => "/apis/aldaas.dev/v1alpha1",
        "mutatingwebhookconfigurations" => "/apis/admissionregistration.k8s.io/v1",
        "leases" => "/apis/coordination.k8s.io/v1",
        _ => "/api/v1",
    };
    let scope = if namespace.is_empty() { String::new() } else { format!("/namespaces/{namespace}") };
    let name = if name.is_empty() { String::new() } else { format!("/{name}") };
    format!("{base}{scope}/{kind}{name}")
}

/// The path of an object that was written down.
fn path_of(object: &Value) -> String {
    let kind = object["kind"].as_str().expect("an object has a kind").to_lowercase() + "s";
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default();
    path(&kind, text("namespace"), text("name"))
}

impl Kube {
    /// Connects to the cluster that `KUBECONFIG` names.
    ///
    /// # Panics
    /// If there is none.
    pub fn connect() -> Kube {
        // Several providers are linked in, and rustls chooses none by itself. A second call finds the first one's choice.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = Runtime::new().expect("a runtime");
        let client = runtime.block_on(async {
            let file = Kubeconfig::from_env()
                .expect("read KUBECONFIG")
                .expect("no cluster: run e2e/run (make e2e), which brings one up and sets KUBECONFIG");
            let config = Config::from_custom_kubeconfig(file, &Default::default()).await.expect("KUBECONFIG");
            Client::try_from(config).expect("a client")
        });
        Kube { runtime, client }
    }

    fn call(&self, method: Method, path: &str, kind: &str, body: &Value) -> Result<Value, ::kube::Error> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", kind)
            .body(body)
            .expect("a request");
        self.runtime.block_on(self.client.request(request))
    }

    /// The object at `path`, or the list; `None` if there is none, or while the API server is away.
    pub fn get(&self, path: &str) -> Option<Value> {
        self.call(Method::GET, path, "application/json", &Value::Null).ok()
    }

    /// The items of the list at `path`.
    pub fn list(&self, path: &str) -> Vec<Value> {
        self.get(path).and_then(|list| list["items"].as_array().cloned()).unwrap_or_default()
    }

    /// Makes the object, or makes it what is given.
    ///
    /// # Errors
    /// What the API server says against it.
    pub fn try_apply(&self, object: &Value) -> Result<Value, String> {
        let path = format!("{}?fieldManager=e2e&force=true", path_of(object));
        self.call(Method::PATCH, &path, "application/apply-patch+yaml", object)
            .map_err(|error| error.to_string())
    }

    /// The same, of which nothing is expected to go wrong.
    ///
    /// # Panics
    /// If it does.
    pub fn apply(&self, object: &Value) -> Value {
        self.try_apply(object).unwrap_or_else(|error| panic!("apply {}: {error}", path_of(object)))
    }

    /// Makes an object that is not there yet.
    ///
    /// # Errors
    /// What the API server says against it.
    pub fn create(&self, object: &Value) -> Result<Value, String> {
        let path = path_of(object);
        let all = path.rsplit_once('/').expect("a path").0;
        self.call(Method::POST, all, "application/json", object).map_err(|error| error.to_string())
    }

    /// What would come of [`Kube::create`].
    ///
    /// # Errors
    /// What the API server says against it.
    pub fn try_create(&self, object: &Value) -> Result<Value, String> {
        let path = path_of(object);
        let all = path.rsplit_once('/').expect("a path").0;
        self.call(Method::POST, &format!("{all}?dryRun=All"), "application/json", object)
            .map_err(|error| error.to_string())
    }

    /// Merges `patch` into the object at `path`.
    ///
    /// # Panics
    /// If the API server refuses.
    pub fn merge(&self, path: &str, patch: &Value) -> Value {
        self.call(Method::PATCH, path, "application/merge-patch+json", patch)
            .unwrap_or_else(|error| panic!("patch {path}: {error}"))
    }

    /// Deletes the object at `path`; one that is not there is fine.
    ///
    /// # Panics
    /// If the API server refuses.
    pub fn delete(&self, path: &str) {
        match self.call(Method::DELETE, path, "application/json", &Value::Null) {
            Ok(_) => {}
            Err(::kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => panic!("delete {path}: {error}"),
        }
    }

    /// Deletes the pod at once, whatever kubelet does, as `kubectl delete --force` does.
    ///
    /// # Panics
    /// If the API server refuses.
    pub fn force_delete(&self, namespace: &str, pod: &str) {
        self.delete(&format!("{}?gracePeriodSeconds=0", path("pods", namespace, pod)));
    }

    /// Runs `command` in a container of a pod.
    ///
    /// # Errors
    /// What it says when it fails.
    pub fn exec(&self, namespace: &str, pod: &str, command: &[&str]) -> Result<String, String> {
        run(Command::new("kubectl").args(["exec", "-n", namespace, pod, "--"]).args(command))
    }

    /// Runs `kubectl` with these arguments.
    ///
    /// # Errors
    /// What it says when it fails.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        run(Command::new("kubectl").args(arguments))
    }
}

pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let out = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned());
    }
    Err(format!(
        "{command:?}: {}{}",
        String::from_utf8_lossy(&out.stdout).trim(),
        String::from_utf8_lossy(&out.stderr).trim()
    ))
}
