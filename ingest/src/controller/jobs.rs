//! The Jobs: in the engine's own container image, with `aldaas-restore` from a directory of the node, or laid in by an init
//! container. That costs each pod a second: kubelet looks only once in a second whether an init container has ended.

use std::collections::BTreeMap;
use std::time::Duration;

use aldaas_api::GoldenImageName;
use aldaas_api::kinds::{Database, DatabaseSpec, PullPolicy, S3Credentials, SourceObject};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, EnvVar};
use serde_json::{Value, json};

use super::bucket;
use super::config::JobSettings;
use super::model::Task;
use super::names::{ATTEMPT, CONTAINER, DATABASE, IMAGE, MANIFEST, SOURCE, TASK};

/// How long a restore and a check may take where nothing is said.
const TIMEOUTS: (Duration, Duration) = (Duration::from_secs(24 * 3600), Duration::from_secs(3600));
/// What a Job may take longer than its work: for a node to be found, and images to be pulled.
const GRACE: Duration = Duration::from_secs(15 * 60);
/// What a Job asks for where nothing is said. With nothing at all it would get what everybody else leaves of a busy node.
const REQUESTS: [(&str, &str); 2] = [("cpu", "250m"), ("memory", "256Mi")];
/// Where `aldaas-restore` is laid.
const PROGRAM: &str = "/aldaas/aldaas-restore";
/// Sockets, logs, and what a restore must put aside.
const WORK_DIR: &str = "/work";
/// Where the check finds the manifest.
const EVIDENCE: &str = "/evidence";

/// One Job to be.
pub struct Order<'a> {
    /// The golden image.
    pub image: &'a GoldenImageName,
    /// Its database.
    pub database: &'a Database,
    /// What to do.
    pub task: Task,
    /// For which time.
    pub attempt: u32,
    /// The dump.
    pub source: &'a SourceObject,
}

/// The Job's name, and that of what goes with it: there is only one of each task.
pub fn name(image: &GoldenImageName, task: Task) -> String {
    format!("{image}-{task}")
}

/// The object.
///
/// # Errors
/// When what the Database says makes no Job; never of one that the API server let pass.
pub fn job(order: &Order<'_>, settings: &JobSettings) -> Result<Job, serde_json::Error> {
    let spec = &order.database.spec;
    let deadline = timeout(order.task, spec) + GRACE;
    serde_json::from_value(json!({
        "metadata": {
            "name": name(order.image, order.task),
            "labels": labels(order),
            "annotations": { ATTEMPT: order.attempt.to_string(), SOURCE: serde_json::to_string(order.source)? },
        },
        "spec": {
            // Whether it is tried again is decided by what it said, and by nobody else.
            "backoffLimit": 0,
            "activeDeadlineSeconds": deadline.as_secs(),
            "template": { "metadata": { "labels": labels(order) }, "spec": pod(order, settings) },
        },
    }))
}

/// The manifest, for the check.
///
/// # Errors
/// Never.
pub fn evidence(
    image: &GoldenImageName,
    manifest: &aldaas_api::manifest::Manifest,
) -> Result<ConfigMap, serde_json::Error> {
    serde_json::from_value(json!({
        "metadata": {
            "name": name(image, Task::Check),
            "labels": { "app.kubernetes.io/name": "aldaas", "app.kubernetes.io/component": "jobs", IMAGE: image.to_string() },
        },
        "data": { MANIFEST: serde_json::to_string(manifest)? },
    }))
}

fn labels(order: &Order<'_>) -> Value {
    json!({
        "app.kubernetes.io/name": "aldaas",
        "app.kubernetes.io/component": "jobs",
        "app.kubernetes.io/managed-by": "aldaas-controller",
        DATABASE: order.image.database().to_string(),
        IMAGE: order.image.to_string(),
        TASK: order.task.as_str(),
    })
}

fn timeout(task: Task, spec: &DatabaseSpec) -> Duration {
    let (said, default) = match task {
        Task::Build => (spec.restore.timeout, TIMEOUTS.0),
        Task::Check => (spec.check.timeout, TIMEOUTS.1),
    };
    said.map_or(default, |ttl| ttl.duration())
}

fn pod(order: &Order<'_>, settings: &JobSettings) -> Value {
    let engine = &order.database.spec.engine;
    let (user, group) = engine.owner();
    let mut secrets: Vec<&String> = settings.pull_secrets.iter().chain(&engine.image_pull_secrets).collect();
    secrets.dedup();
    let mut pod = json!({
        "restartPolicy": "Never",
        "serviceAccountName": settings.account,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 60,
        "imagePullSecrets": secrets.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>(),
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": user, "runAsGroup": group,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "containers": [container(order)],
        "volumes": volumes(order, settings),
    });
    if settings.program.is_none() {
        pod["initContainers"] = json!([install(settings)]);
    }
    if let (Some(pod), Value::Object(placement)) = (pod.as_object_mut(), json!(settings.placement)) {
        pod.extend(placement);
    }
    pod
}

fn restricted() -> Value {
    json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } })
}

fn install(settings: &JobSettings) -> Value {
    let mut install = json!({
        "name": "install",
        "image": settings.image,
        "command": ["/usr/local/bin/aldaas-restore", "install", PROGRAM],
        "securityContext": restricted(),
        "volumeMounts": [{ "name": "aldaas", "mountPath": "/aldaas" }],
        "resources": { "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "memory": "64Mi" } },
    });
    if let Some(policy) = &settings.pull_policy {
        install["imagePullPolicy"] = json!(policy);
    }
    install
}

fn container(order: &Order<'_>) -> Value {
    let engine = &order.database.spec.engine;
    let mut mounts = vec![
        json!({ "name": "aldaas", "mountPath": "/aldaas", "readOnly": true }),
        json!({ "name": "work", "mountPath": WORK_DIR }),
        json!({ "name": "data", "mountPath": engine.mount() }),
    ];
    if order.task == Task::Check {
        mounts.push(json!({ "name": "evidence", "mountPath": EVIDENCE, "readOnly": true }));
    }
    let mut container = json!({
        "name": CONTAINER,
        "image": engine.image,
        "command": [PROGRAM],
        "args": arguments(order),
        "env": environment(order),
        "workingDir": WORK_DIR,
        "securityContext": restricted(),
        "volumeMounts": mounts,
    });
    container["resources"] = match &engine.resources {
        Some(resources) => json!(resources),
        None => json!({ "requests": BTreeMap::from(REQUESTS) }),
    };
    if let Some(policy) = engine.image_pull_policy {
        container["imagePullPolicy"] = json!(match policy {
            PullPolicy::Always => "Always",
            PullPolicy::IfNotPresent => "IfNotPresent",
            PullPolicy::Never => "Never",
        });
    }
    container
}

fn volumes(order: &Order<'_>, settings: &JobSettings) -> Value {
    let kind = match order.task {
        Task::Build => "build",
        Task::Check => "candidate",
    };
    let attributes = json!({ "kind": kind, "image": order.image.to_string() });
    let program = match &settings.program {
        Some(path) => json!({ "name": "aldaas", "hostPath": { "path": path, "type": "Directory" } }),
        None => json!({ "name": "aldaas", "emptyDir": {} }),
    };
    let mut volumes = vec![
        program,
        json!({ "name": "work", "emptyDir": {} }),
        json!({ "name": "data", "csi": { "driver": "csi.aldaas.dev", "volumeAttributes": attributes } }),
    ];
    if order.task == Task::Check {
        volumes.push(json!({ "name": "evidence", "configMap": { "name": name(order.image, Task::Check) } }));
    }
    json!(volumes)
}

/// What the engine's database is called inside it.
fn inner_name(database: &Database, image: &GoldenImageName) -> String {
    database.spec.engine.database.clone().unwrap_or_else(|| image.database().to_string())
}

fn arguments(order: &Order<'_>) -> Vec<String> {
    let spec = &order.database.spec;
    let mut arguments = Arguments::default();
    match order.task {
        Task::Build => {
            arguments.word("restore").flag("--from", &order.source.location);
            arguments.flag("--manifest", &format!("{WORK_DIR}/{MANIFEST}"));
            arguments.option("--jobs", spec.restore.jobs.as_ref());
            arguments.option("--locale", spec.engine.locale.as_ref());
            if spec.restore.allow_empty {
                arguments.word("--allow-empty");
            }
            arguments.each("--command", &spec.restore.command);
            arguments.each("--mask-sql", &spec.mask.sql).each("--mask-command", &spec.mask.command);
            arguments.option("--timeout", spec.restore.timeout.as_ref());
        }
        Task::Check => {
            arguments.word("check").flag("--manifest", &format!("{EVIDENCE}/{MANIFEST}"));
            arguments.each("--sql", &spec.check.sql).each("--command", &spec.check.command);
            arguments.option("--timeout", spec.check.timeout.as_ref());
        }
    }
    arguments.each("--engine-arg", &spec.engine.args);
    arguments.flag("--data-dir", spec.engine.mount()).flag("--work-dir", WORK_DIR);
    arguments.flag("--database", &inner_name(order.database, order.image));
    arguments.0
}

#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn word(&mut self, word: &str) -> &mut Self {
        self.0.push(word.to_owned());
        self
    }

    /// In one word, so that a value that begins with a dash is no flag, and with Kubernetes' own `$(…)` taken as it is.
    fn flag(&mut self, flag: &str, value: &str) -> &mut Self {
        self.0.push(format!("{flag}={}", value.replace("$(", "$$(")));
        self
    }

    fn each(&mut self, flag: &str, values: &[String]) -> &mut Self {
        for value in values {
            self.flag(flag, value);
        }
        self
    }

    fn option(&mut self, flag: &str, value: Option<&impl ToString>) -> &mut Self {
        if let Some(value) = value {
            self.flag(flag, &value.to_string());
        }
        self
    }
}

/// The store and its key, and what the engine and commands are to see: that goes by names of its own, because they see nothing of
/// what `aldaas-restore` itself does.
fn environment(order: &Order<'_>) -> Vec<Value> {
    let spec = &order.database.spec;
    let mut environment = Vec::new();
    if order.task == Task::Build {
        let store = bucket::store(&spec.source.s3);
        environment.extend(store.into_iter().map(|(name, value)| json!({ "name": name, "value": value })));
        environment.extend(spec.source.s3.credentials.iter().flat_map(key));
    }
    let theirs: &[(&str, &[EnvVar])] = match order.task {
        Task::Build => &[
            ("ALDAAS_ENGINE_ENV_", &spec.engine.env),
            ("ALDAAS_RESTORE_ENV_", &spec.restore.env),
            ("ALDAAS_MASK_ENV_", &spec.mask.env),
        ],
        Task::Check => &[("ALDAAS_ENGINE_ENV_", &spec.engine.env), ("ALDAAS_CHECK_ENV_", &spec.check.env)],
    };
    for (prefix, variables) in theirs {
        environment.extend(variables.iter().map(|variable| {
            json!(EnvVar { name: format!("{prefix}{}", variable.name), ..variable.clone() })
        }));
    }
    environment
}

/// From the Secret straight to the container: nobody else sees it.
fn key(credentials: &S3Credentials) -> [Value; 2] {
    let from = |name: &str, entry: &str| json!({ "name": name, "valueFrom": { "secretKeyRef": { "name": credentials.secret, "key": entry } } });
    [
        from("AWS_ACCESS_KEY_ID", &credentials.access_key_id),
        from("AWS_SECRET_ACCESS_KEY", &credentials.secret_access_key),
    ]
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodSpec;

    use super::*;
    use crate::controller::config::Placement;

    fn settings() -> JobSettings {
        JobSettings {
            image: "aldaas".into(),
            pull_policy: None,
            program: None,
            pull_secrets: Vec::new(),
            account: "aldaas-jobs".into(),
            placement: Placement::default(),
        }
    }

    /// The pod of each task's Job.
    fn pods(settings: &JobSettings) -> Vec<PodSpec> {
        let database: Database = serde_json::from_value(json!({
            "apiVersion": "aldaas.dev/v1alpha1", "kind": "Database", "metadata": { "name": "orders" },
            "spec": {
                "engine": { "image": "postgres:15" }, "source": { "s3": { "bucket": "backup" } },
                "storage": { "size": "1Gi" },
            },
        }))
        .unwrap();
        let image = "orders-20261123t033000z".parse().unwrap();
        let source = SourceObject { location: "s3://backup/1.sql".into(), ..SourceObject::default() };
        let pod = |task| {
            let order = Order { image: &image, database: &database, task, attempt: 1, source: &source };
            job(&order, settings).unwrap().spec.unwrap().template.spec.unwrap()
        };
        Task::ALL.map(pod).to_vec()
    }

    #[test]
    fn a_job_asks_for_something_where_nothing_is_said() {
        for pod in pods(&settings()) {
            let asked = pod.containers[0].resources.clone().unwrap();
            let requests = asked.requests.unwrap();
            assert_eq!((requests["cpu"].0.as_str(), requests["memory"].0.as_str()), ("250m", "256Mi"));
            assert_eq!(asked.limits, None);
        }
    }

    #[test]
    fn jobs_run_where_the_cluster_wants_them_and_nowhere_else() {
        let placement = r#"{
            "nodeSelector": { "pool": "restores" },
            "tolerations": [{ "key": "restores", "operator": "Exists" }],
            "priorityClassName": "low"
        }"#;
        let settings = JobSettings { placement: placement.parse().unwrap(), ..settings() };
        for pod in pods(&settings) {
            assert_eq!(pod.node_selector.unwrap()["pool"], "restores");
            assert_eq!(pod.tolerations.unwrap()[0].key.as_deref(), Some("restores"));
            assert_eq!(pod.priority_class_name.as_deref(), Some("low"));
            assert_eq!(pod.service_account_name.as_deref(), Some("aldaas-jobs"), "the rest stays as it is");
        }
    }

    #[test]
    fn the_program_comes_from_the_node_or_else_from_an_image_and_can_not_be_changed_by_a_dump() {
        let on_node = JobSettings { program: Some("/plugins/bin/1".into()), ..settings() };
        for (settings, from_node) in [(on_node, true), (settings(), false)] {
            for pod in pods(&settings) {
                let volume = pod.volumes.unwrap().into_iter().find(|volume| volume.name == "aldaas").unwrap();
                assert_eq!(
                    volume.host_path.map(|host| host.path),
                    from_node.then(|| "/plugins/bin/1".into())
                );
                assert_eq!(pod.init_containers.is_none(), from_node);
                let mounts = pod.containers[0].volume_mounts.clone().unwrap();
                let mount = mounts.iter().find(|mount| mount.name == "aldaas").unwrap();
                assert_eq!((mount.mount_path.as_str(), mount.read_only), ("/aldaas", Some(true)));
            }
        }
    }

    #[test]
    fn a_placement_can_not_change_what_else_a_pod_is() {
        for text in ["", "42", r#"{"serviceAccountName":"admin"}"#, r#"{"tolerations":{}}"#] {
            assert!(text.parse::<Placement>().is_err(), "{text}");
        }
        assert_eq!("{}".parse::<Placement>().unwrap(), Placement::default());
    }
}
