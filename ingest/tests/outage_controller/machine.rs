//! What is missing where only an API server runs: who makes pods of Jobs, who runs them, and who cleans up behind deleted objects.
//!
//! The volumes are real ones, made as the node plugin makes them, and in them runs the real `aldaas-restore`.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aldaas_api::{CloneName, GoldenImageName};
use aldaas_golden::{BlankSize, CloneRequest, GOLDEN, PodUse, Purpose, Store};
use aldaas_volume::{Filesystem, ImageSpec, Marker, NewVolume, Node, OpenVolume};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Node as KubeNode, Pod, Secret};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::kubelet::{self, AllLogs};

/// Of the engine's image, as the node tells it.
pub const DIGEST: &str = "sha256:6d3f9a1c6d3f9a1c6d3f9a1c6d3f9a1c6d3f9a1c6d3f9a1c6d3f9a1c6d3f9a1c";
const SIZE: BlankSize = BlankSize { bytes: 1 << 30, object_size: None };

/// A node that runs our Jobs.
pub struct Machine {
    pub store: Store,
    pub node: Arc<Node>,
    pub work: PathBuf,
    pub restore: PathBuf,
    pub owner: (u32, u32),
    pub namespace: String,
    pub client: Client,
    logs: AllLogs,
    /// How many containers were started, by Job.
    pub runs: Mutex<HashMap<String, usize>>,
    /// Jobs whose next container ends with this code before it begins.
    pub trouble: Mutex<Vec<i32>>,
    /// Containers wait while this is set.
    pub hold: std::sync::atomic::AtomicBool,
}

#[derive(Clone)]
struct Volume {
    image: GoldenImageName,
    clone: Option<CloneName>,
}

impl Machine {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        client: Client,
        namespace: &str,
        store: Store,
        node: Node,
        work: PathBuf,
        restore: PathBuf,
        owner: (u32, u32),
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            node: Arc::new(node),
            work,
            restore,
            owner,
            namespace: namespace.to_owned(),
            client,
            logs: AllLogs::default(),
            runs: Mutex::default(),
            trouble: Mutex::default(),
            hold: false.into(),
        })
    }

    /// Registers itself and works until the test ends.
    pub async fn run(self: Arc<Self>) {
        let port = kubelet::serve(self.logs.clone()).await;
        let nodes: Api<KubeNode> = Api::all(self.client.clone());
        let node = json!({ "metadata": { "name": "machine" } });
        nodes.create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await.unwrap();
        let status = json!({ "status": {
            "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }],
            "daemonEndpoints": { "kubeletEndpoint": { "Port": port } },
        }});
        nodes.patch_status("machine", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
        let mut started = HashSet::new();
        loop {
            // The API server may be away; that is what some tests are about.
            let _ = self.round(&mut started).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn round(self: &Arc<Self>, started: &mut HashSet<String>) -> Result<(), kube::Error> {
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), &self.namespace);
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let all = pods.list(&ListParams::default()).await?;
        for job in jobs.list(&ListParams::default()).await? {
            let name = job.name_any();
            let own: Vec<&Pod> =
                all.iter().filter(|pod| pod.labels().get("job-name") == Some(&name)).collect();
            if job.metadata.deletion_timestamp.is_some() {
                for pod in &own {
                    let _ = pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await;
                }
                if own.is_empty() {
                    let patch = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
                    let _ = jobs.patch(&name, &PatchParams::default(), &patch).await;
                }
            } else if own.is_empty() {
                self.make_pod(&pods, &job).await?;
            }
        }
        for pod in all {
            if started.insert(pod.uid().unwrap_or_default()) {
                tokio::spawn(self.clone().pod(pods.clone(), pod));
            }
        }
        Ok(())
    }

    async fn make_pod(&self, pods: &Api<Pod>, job: &Job) -> Result<(), kube::Error> {
        let template = json!(job.spec.as_ref().unwrap().template);
        let mut labels = template["metadata"]["labels"].clone();
        labels["job-name"] = json!(job.name_any());
        let mut spec = template["spec"].clone();
        spec["nodeName"] = json!("machine");
        let pod = json!({
            "metadata": { "generateName": format!("{}-", job.name_any()), "labels": labels }, "spec": spec,
        });
        pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.map(drop)
    }

    async fn pod(self: Arc<Self>, pods: Api<Pod>, pod: Pod) {
        let name = pod.name_any();
        while self.hold.load(std::sync::atomic::Ordering::Acquire) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (owned, uid) = (json!(pod.spec), pod.uid().unwrap());
        // As kubelet does it: again and again, until the pod goes.
        let (volume, data) = loop {
            let (machine, described) = (self.clone(), pod.clone());
            match tokio::task::spawn_blocking(move || machine.mount(&described)).await.unwrap() {
                Ok(mounted) => break mounted,
                Err(error) => eprintln!("{name} can't be mounted: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            if matches!(pods.get_opt(&name).await, Ok(None)) {
                return;
            }
        };
        self.logs.lock().unwrap().entry(name.clone()).or_default();
        self.say(&pods, &name, "Running", &json!({ "running": {} })).await;
        let job = pod.labels()["job-name"].clone();
        *self.runs.lock().unwrap().entry(job).or_default() += 1;
        let trouble = self.trouble.lock().unwrap().pop();
        let code = match trouble {
            Some(code) => code,
            None => self.container(&pods, &name, &uid, &owned["containers"][0], &data).await,
        };
        self.logs.lock().unwrap().get_mut(&name).unwrap().ended = true;
        let phase = if code == 0 { "Succeeded" } else { "Failed" };
        let terminated = json!({ "terminated": { "exitCode": code, "reason": if code == 0 { "Completed" } else { "Error" } } });
        self.say(&pods, &name, phase, &terminated).await;
        let machine = self.clone();
        tokio::task::spawn_blocking(move || machine.unmount(&volume)).await.unwrap();
    }

    /// The pod's status, whoever is away at the moment.
    async fn say(&self, pods: &Api<Pod>, name: &str, phase: &str, state: &Value) {
        let container = json!({
            "name": "engine", "image": "engine", "imageID": format!("registry/postgres@{DIGEST}"), "ready": false, "restartCount": 0, "state": state,
        });
        let patch = Patch::Merge(json!({ "status": { "phase": phase, "containerStatuses": [container] } }));
        while let Err(error) = pods.patch_status(name, &PatchParams::default(), &patch).await {
            if matches!(&error, kube::Error::Api(status) if status.code == 404) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// As the node plugin does it.
    fn mount(&self, pod: &Pod) -> Result<(Volume, PathBuf), String> {
        let spec = json!(pod.spec);
        let csi = spec["volumes"].as_array().unwrap().iter().find_map(|volume| volume.get("csi")).unwrap();
        let attributes = &csi["volumeAttributes"];
        let image: GoldenImageName = attributes["image"].as_str().unwrap().parse().unwrap();
        let uid = pod.uid().unwrap();
        let used = PodUse {
            node: "machine".into(),
            volume: format!("csi-{uid}"),
            namespace: self.namespace.clone(),
            pod: pod.name_any(),
            pod_uid: uid.clone(),
            ..PodUse::default()
        };
        let marker = Marker { golden_image: image.to_string(), database: image.database().to_string() };
        if attributes["kind"] == "build" {
            self.store.ensure_blank(&image, SIZE, "a pod", &used).map_err(|error| error.to_string())?;
            let spec = ImageSpec::new(self.store.pool().to_string(), GOLDEN, image.to_string());
            let new = NewVolume { filesystem: Filesystem::Ext4, marker: &marker, owner: self.owner };
            let mounted = self.node.create(&spec, &new).map_err(|error| error.to_string())?;
            return Ok((Volume { image, clone: None }, mounted.data));
        }
        let golden = self.store.golden_image(&image).map_err(|error| error.to_string())?;
        let name: CloneName = format!("csi-{:0>64}", uid.replace('-', "")).parse().unwrap();
        let request = CloneRequest {
            name: name.clone(),
            purpose: Purpose::Pod,
            holder: None,
            object_size: None,
            pod: Some(used),
            unverified: true,
        };
        self.store.ensure_clone(&golden, &request).map_err(|error| error.to_string())?;
        let spec = ImageSpec::new(self.store.pool().to_string(), aldaas_golden::CLONE, name.to_string());
        let mounted =
            self.node.open(&spec, &OpenVolume::writable(&marker)).map_err(|error| error.to_string())?;
        Ok((Volume { image, clone: Some(name) }, mounted.data))
    }

    fn unmount(&self, volume: &Volume) {
        let pool = self.store.pool().to_string();
        match &volume.clone {
            None => {
                let spec = ImageSpec::new(pool, GOLDEN, volume.image.to_string());
                patiently(|| self.node.close(&spec));
            }
            Some(clone) => {
                let spec = ImageSpec::new(pool, aldaas_golden::CLONE, clone.to_string());
                patiently(|| self.node.discard(&spec));
                if let Some(trashed) = self.store.trash_clone(clone, Duration::from_secs(5)).unwrap() {
                    self.store.purge_clone(&trashed).unwrap();
                }
            }
        }
    }

    /// Runs what the container says, with its paths where they are here; its exit code.
    async fn container(&self, pods: &Api<Pod>, pod: &str, uid: &str, container: &Value, data: &Path) -> i32 {
        let work = self.work.join(uid);
        std::fs::create_dir_all(&work).unwrap();
        std::os::unix::fs::chown(&work, Some(self.owner.0), Some(self.owner.1)).unwrap();
        let evidence = self.evidence(pod).await;
        if let Some(evidence) = &evidence {
            std::fs::write(work.join("evidence.json"), evidence).unwrap();
        }
        let mount =
            container["volumeMounts"].as_array().unwrap().iter().find(|mount| mount["name"] == "data");
        let mount = mount.unwrap()["mountPath"].as_str().unwrap();
        let here = |argument: &str| {
            argument
                .replace("=/evidence/manifest.json", &format!("={}", work.join("evidence.json").display()))
                .replace("=/work", &format!("={}", work.display()))
                .replace(&format!("={mount}"), &format!("={}", data.display()))
                .replace("$$(", "$(")
        };
        let arguments: Vec<String> = container["args"]
            .as_array()
            .unwrap()
            .iter()
            .map(|argument| here(argument.as_str().unwrap()))
            .collect();
        let mut command = Command::new(&self.restore);
        command.args(&arguments).current_dir(&work).env_clear().env("PATH", std::env::var("PATH").unwrap());
        for variable in container["env"].as_array().into_iter().flatten() {
            command.env(variable["name"].as_str().unwrap(), self.value(variable).await);
        }
        let (user, group) = self.owner;
        command
            .uid(user)
            .gid(group)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        tokio::join!(self.keep(pod, out), self.keep(pod, err), async {
            // A pod that was deleted is ended.
            loop {
                tokio::select! {
                    _ = child.wait() => return,
                    () = tokio::time::sleep(Duration::from_millis(300)) => {
                        if matches!(pods.get_opt(pod).await, Ok(None)) {
                            let _ = child.start_kill();
                        }
                    }
                }
            }
        });
        child.wait().await.unwrap().code().unwrap_or(137)
    }

    async fn keep(&self, pod: &str, from: impl tokio::io::AsyncRead + Unpin) {
        let mut lines = BufReader::new(from).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            self.logs.lock().unwrap().get_mut(pod).unwrap().lines.push((Timestamp::now(), line));
        }
    }

    async fn evidence(&self, pod: &str) -> Option<String> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let name = pod.rsplit_once('-').unwrap().0;
        maps.get_opt(name).await.ok()??.data?.remove("manifest.json")
    }

    async fn value(&self, variable: &Value) -> String {
        if let Some(value) = variable["value"].as_str() {
            return value.to_owned();
        }
        let from = &variable["valueFrom"]["secretKeyRef"];
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let secret = secrets.get(from["name"].as_str().unwrap()).await.unwrap();
        String::from_utf8(secret.data.unwrap()[from["key"].as_str().unwrap()].0.clone()).unwrap()
    }

    /// How often this Job's container was started.
    pub fn runs(&self, job: &str) -> usize {
        self.runs.lock().unwrap().get(job).copied().unwrap_or(0)
    }

    /// What a Job's pods wrote, for a test that failed.
    pub fn written(&self) -> String {
        let logs = self.logs.lock().unwrap();
        logs.iter()
            .map(|(pod, log)| {
                let lines: String = log.lines.iter().map(|(_, line)| format!("  {line}\n")).collect();
                format!("{pod}:\n{lines}")
            })
            .collect()
    }
}

/// As kubelet does it: whoever looks at the device at this moment (a container that is just being made has all mounts of the
/// machine) lets go of it soon.
fn patiently(mut unmount: impl FnMut() -> Result<(), aldaas_volume::Error>) {
    let start = std::time::Instant::now();
    while let Err(error) = unmount() {
        assert!(error.is_busy() && start.elapsed() < Duration::from_secs(60), "{error}");
        std::thread::sleep(Duration::from_millis(200));
    }
}
