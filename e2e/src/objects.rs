//! What users write: namespaces, databases, workloads.

use serde_json::{Value, json};

use crate::{Site, path, until};

/// The engine's image.
pub const ENGINE: &str = "localhost/postgres:15";
/// Where aldaas is installed.
const ALDAAS: &str = "aldaas";
/// The bucket of dumps that nobody tells of: it is listed now and then.
const BUCKET: &str = "backup";

/// The name of an object.
pub fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// A label selector, as a query.
pub fn labels_of(name: &str) -> String {
    format!("?labelSelector=app%3D{name}")
}

/// A namespace.
pub struct Room<'s> {
    site: &'s Site,
    /// Its name.
    pub name: String,
}

impl<'s> Room<'s> {
    pub(crate) fn make(site: &'s Site, name: &str, labels: Value) -> Room<'s> {
        site.kube.apply(&json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels},
        }));
        let room = Room { site, name: name.to_owned() };
        // Its service account comes a moment later, and before Kubernetes 1.24 the account's token after that.
        until("pods can be made in the namespace", || site.kube.try_create(&room.pod("try", json!({}))).ok());
        room
    }

    /// A pod of one Postgres, with these annotations.
    pub fn pod(&self, name: &str, annotations: Value) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": self.name, "labels": {"app": name}, "annotations": annotations},
            "spec": template(),
        })
    }

    /// A Deployment of it, with the annotations on the Deployment itself, as `kubectl annotate deployment` puts them.
    pub fn deployment(&self, name: &str, replicas: u32, annotations: Value) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "namespace": self.name, "annotations": annotations},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": template()},
            },
        })
    }

    /// Names of the pods of `app` that are Ready and not going away.
    pub fn ready_pods(&self, app: &str) -> Vec<String> {
        let pods = self.site.kube.list(&(path("pods", &self.name, "") + &labels_of(app)));
        pods.iter().filter(|pod| is_ready(pod)).map(|pod| name_of(pod).to_owned()).collect()
    }

    /// Names of all pods that are Ready.
    pub fn ready_pods_of_all(&self) -> Vec<String> {
        let pods = self.site.kube.list(&path("pods", &self.name, ""));
        pods.iter().filter(|pod| is_ready(pod)).map(|pod| name_of(pod).to_owned()).collect()
    }

    /// Waits for `count` of them, and that there are no others.
    ///
    /// # Panics
    /// If that takes too long.
    #[track_caller]
    pub fn until_ready(&self, app: &str, count: usize) -> Vec<String> {
        until(&format!("{count} pods of {app} in {} are ready", self.name), || {
            let all = self.site.kube.list(&(path("pods", &self.name, "") + &labels_of(app)));
            let ready = self.ready_pods(app);
            (ready.len() == count && all.len() == count).then_some(ready)
        })
    }

    /// What Postgres in `pod` answers, without decoration.
    ///
    /// # Errors
    /// What it says instead.
    pub fn try_sql(&self, pod: &str, database: &str, query: &str) -> Result<String, String> {
        self.site.kube.exec(
            &self.name,
            pod,
            &["psql", "-U", "postgres", "-d", database, "-v", "ON_ERROR_STOP=1", "-qAtc", query],
        )
    }

    /// The same, of which an answer is expected.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn sql(&self, pod: &str, database: &str, query: &str) -> String {
        self.try_sql(pod, database, query).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Deletes an object and waits until it is gone.
    pub fn remove(&self, kind: &str, name: &str) {
        let path = path(kind, &self.name, name);
        self.site.kube.delete(&format!("{path}?propagationPolicy=Foreground"));
        until(&format!("{kind} {name} is gone"), || self.site.kube.get(&path).is_none().then_some(()));
    }

    /// Waits for an Event of `pod` that holds `text`, and returns what it says.
    pub fn until_event(&self, pod: &str, text: &str) -> String {
        let all = format!("{}?fieldSelector=involvedObject.name%3D{pod}", path("events", &self.name, ""));
        until(&format!("an Event of {pod} that says {text:?}"), || {
            let events = self.site.kube.list(&all);
            let mut said = events.iter().map(|event| {
                format!(
                    "{} {}",
                    event["reason"].as_str().unwrap_or_default(),
                    event["message"].as_str().unwrap_or_default()
                )
            });
            said.find(|said| said.contains(text))
        })
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        // What is looked at after a failure has to be there still.
        if !std::thread::panicking() {
            self.site.kube.delete(&path("namespaces", "", &self.name));
            // The rest of it is nobody's hindrance.
            let pods = path("pods", &self.name, "");
            until("the namespace's pods are gone", || self.site.kube.list(&pods).is_empty().then_some(()));
        }
    }
}

/// One Postgres that takes a second or less to stop.
fn template() -> Value {
    json!({
        "terminationGracePeriodSeconds": 5,
        "containers": [{
            "name": "db", "image": ENGINE, "imagePullPolicy": "IfNotPresent",
            "readinessProbe": {
                "exec": {"command": ["pg_isready", "-q", "-U", "postgres"]}, "periodSeconds": 1, "timeoutSeconds": 5,
            },
        }],
    })
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    pod["metadata"]["deletionTimestamp"].is_null()
        && conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

/// A `Database`, and where its dumps go.
pub struct Database<'s> {
    site: &'s Site,
    /// Its name, which its database inside the engine has, too.
    pub name: String,
    /// Other scenarios clone it, too.
    shared: bool,
    bucket: String,
}

impl<'s> Database<'s> {
    pub(crate) fn make(site: &'s Site, name: &str, shared: bool) -> Database<'s> {
        let s3 = site.bed.s3();
        let bucket = BUCKET.to_owned();
        site.bed.bucket(&bucket);
        site.kube.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "e2e-s3", "namespace": ALDAAS},
            "stringData": {"accessKeyId": s3.access_key, "secretAccessKey": s3.secret_key},
        }));
        let database = Database { site, name: name.to_owned(), shared, bucket };
        if !shared || database.latest().is_none() {
            database.change(json!({}));
        }
        database
    }

    /// From now on it has a bucket of its own, which is hardly ever listed: the store tells the controller of what is new there.
    ///
    /// # Panics
    /// If the controller can't be reached.
    pub fn be_told(&mut self) {
        self.bucket.clone_from(&self.name);
        self.site.bed.bucket(&self.bucket);
        let service =
            self.site.kube.get(&path("services", ALDAAS, "aldaas-controller")).expect("its Service");
        let address = service["spec"]["clusterIP"].as_str().expect("an address");
        self.site.bed.notify(&self.bucket, &format!("http://{address}:9811/events"));
        self.change(json!({"source": self.source("1h")}));
        until("the empty bucket is seen", || {
            let object = self.site.kube.get(&path("databases", "", &self.name))?;
            let conditions = object["status"]["conditions"].as_array()?.clone();
            conditions.iter().any(|c| c["type"] == "Reachable" && c["reason"] == "Empty").then_some(())
        });
    }

    /// Where its dumps are.
    pub fn location(&self, key: &str) -> String {
        format!("s3://{}/{}/{key}", self.bucket, self.name)
    }

    /// Where its dumps are, looked at so often.
    pub fn source(&self, interval: &str) -> Value {
        json!({"interval": interval, "s3": {
            "endpoint": self.site.bed.s3().endpoint, "bucket": self.bucket, "prefix": format!("{}/", self.name),
            "credentials": {"secret": "e2e-s3", "accessKeyId": "accessKeyId", "secretAccessKey": "secretAccessKey"},
        }})
    }

    /// Sets more of the spec than the least: everybody may clone, one golden image is kept.
    pub fn change(&self, more: Value) {
        let mut spec = json!({
            "engine": {"image": ENGINE, "imagePullPolicy": "IfNotPresent"},
            "source": self.source("5s"),
            "storage": {"size": "1Gi"},
            "retention": {"keep": 1},
            "access": {"namespaceSelector": {}},
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        self.site.kube.apply(&json!({
            "apiVersion": "aldaas.dev/v1alpha1", "kind": "Database", "metadata": {"name": self.name}, "spec": spec,
        }));
    }

    /// Uploads a dump.
    pub fn upload(&self, key: &str, dump: &[u8]) {
        self.site.bed.put_object(&self.bucket, &format!("{}/{key}", self.name), dump);
    }

    /// The golden image that is `latest` now.
    pub fn latest(&self) -> Option<String> {
        let object = self.site.kube.get(&path("databases", "", &self.name))?;
        object["status"]["latest"].as_str().map(str::to_owned)
    }

    /// Waits until another image than `than` is latest.
    ///
    /// # Panics
    /// If that takes too long.
    #[track_caller]
    pub fn until_latest_other_than(&self, than: Option<&str>) -> String {
        until(&format!("a new latest golden image of {}", self.name), || {
            self.latest().filter(|latest| Some(latest.as_str()) != than)
        })
    }

    /// Uploads a dump, and waits until it is latest.
    #[track_caller]
    pub fn ingest(&self, key: &str, dump: &[u8]) -> String {
        let before = self.latest();
        self.upload(key, dump);
        self.until_latest_other_than(before.as_deref())
    }

    /// Its golden images.
    pub fn golden_images(&self) -> Vec<Value> {
        let all = self.site.kube.list(&path("goldenimages", "", ""));
        all.into_iter().filter(|image| image["spec"]["database"] == self.name.as_str()).collect()
    }
}

impl Drop for Database<'_> {
    /// Its golden images stay: they are data, and go with Ceph.
    fn drop(&mut self) {
        if !self.shared && !std::thread::panicking() {
            self.site.kube.delete(&path("databases", "", &self.name));
        }
    }
}
