//! The controller as a program, on an API server and in a pool of its own, with a machine that runs its Jobs.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aldaas_api::kinds::{Database, GoldenImage};
use aldaas_golden::Store;
use aldaas_rbd as rbd;
use aldaas_testbed::{OwnKube, Scratch, TestPool, Testbed, unique};
use aldaas_volume::{AttachMode, Node, NodeConfig};
use k8s_openapi::api::core::v1::{Event, Namespace, Secret};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::machine::Machine;

/// Generous: the machine may be busy.
const LIMIT: Duration = Duration::from_secs(90);
pub const NAMESPACE: &str = "aldaas";

/// A dump of a hundred customers.
pub const DUMP: &str = "\
--
-- PostgreSQL database dump
--
CREATE TABLE customer (id integer PRIMARY KEY, name text NOT NULL);
INSERT INTO customer SELECT n, 'customer ' || n FROM generate_series(1, 100) n;
--
-- PostgreSQL database dump complete
--
";
/// One that fails in the middle.
pub const BAD_DUMP: &str = "\
--
-- PostgreSQL database dump
--
CREATE TABLE customer (id integer PRIMARY KEY, name text NOT NULL);
INSERT INTO custmer VALUES (1, 'x');
--
-- PostgreSQL database dump complete
--
";

pub struct Bed<'a> {
    /// Ceph.
    pub ceph: &'a Testbed,
    /// S3.
    pub testbed: &'static Testbed,
    pub kube: OwnKube,
    pub client: Client,
    pub pool: TestPool,
    pub store: Store,
    pub machine: Arc<Machine>,
    pub bucket: String,
    pub events: u16,
    pub http: u16,
    _scratch: Scratch,
}

/// A running controller; killed when dropped.
pub struct Controller(pub Child);

impl Bed<'static> {
    pub async fn new() -> Self {
        Self::on(Testbed::get()).await
    }
}

impl<'a> Bed<'a> {
    /// With a Ceph of the test's own.
    pub async fn on(own: &'a Testbed) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let testbed = Testbed::get();
        let (kube, pool, scratch) = (Testbed::lent_kube(), own.fresh_pool(), own.scratch());
        let file = kube::config::Kubeconfig::read_from(kube.kubeconfig()).unwrap();
        let config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await.unwrap();
        let client = Client::try_from(config).unwrap();
        let ceph = rbd::ConnectOptions { conf: Some(own.ceph_conf().to_owned()), ..Default::default() };
        let store =
            Store::open(&rbd::Cluster::connect(&ceph).unwrap(), &pool.name().parse().unwrap()).unwrap();
        let node = Node::new(NodeConfig {
            run_dir: scratch.path().join("run"),
            ceph,
            attach: AttachMode::Auto,
            fuse_program: Testbed::program("aldaas-fuse"),
            fuse_server: Default::default(),
        })
        .unwrap();
        let bucket = unique("ingest-");
        testbed.bucket(&bucket);
        let bed = Self {
            machine: Machine::new(
                client.clone(),
                NAMESPACE,
                store.clone(),
                node,
                scratch.path().join("work"),
                Testbed::program("aldaas-restore"),
                engine_user(),
            ),
            ceph: own,
            testbed,
            kube,
            client,
            pool,
            store,
            bucket,
            events: free_port(),
            http: free_port(),
            _scratch: scratch,
        };
        bed.prepare().await;
        tokio::spawn(bed.machine.clone().run());
        bed
    }

    async fn prepare(&self) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        create(&namespaces, json!({ "metadata": { "name": NAMESPACE } })).await;
        let s3 = self.testbed.s3();
        let data = json!({ "AWS_ACCESS_KEY_ID": s3.access_key, "AWS_SECRET_ACCESS_KEY": s3.secret_key });
        create(&self.secrets(), json!({ "metadata": { "name": "s3" }, "stringData": data })).await;
    }

    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    pub fn databases(&self) -> Api<Database> {
        Api::all(self.client.clone())
    }

    pub fn images(&self) -> Api<GoldenImage> {
        Api::all(self.client.clone())
    }

    /// The program, with a failpoint set or without.
    pub fn command(&self, pod: &str) -> Command {
        self.command_at(pod, (self.http, self.events))
    }

    fn command_at(&self, pod: &str, (http, events): (u16, u16)) -> Command {
        let mut command = Command::new(Testbed::program("aldaas-ingest"));
        let ports = [format!("127.0.0.1:{http}"), format!("127.0.0.1:{events}")];
        command
            .args(["serve", "--namespace", NAMESPACE, "--image", "aldaas", "--pod", pod, "--resync", "2s"])
            .args([
                "--http",
                &ports[0],
                "--events",
                &ports[1],
                "--pool",
                self.pool.name(),
                "--ceph-timeout",
                "5s",
            ])
            .arg("--kubeconfig")
            .arg(self.kube.kubeconfig())
            .arg("--ceph-conf")
            .arg(self.ceph.ceph_conf())
            .arg("--restore-program")
            .arg(Testbed::program("aldaas-restore"))
            .env("RUST_LOG", "info,aldaas_ingest=debug")
            .env_remove("AWS_ACCESS_KEY_ID")
            .env_remove("AWS_SECRET_ACCESS_KEY")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    pub fn controller(&self) -> Controller {
        Controller(self.command("one").spawn().unwrap())
    }

    /// Another replica, without pages.
    pub fn second(&self) -> Controller {
        Controller(self.command_at("two", (0, 0)).spawn().unwrap())
    }

    /// One that is killed at a failpoint.
    pub fn controller_until(&self, failpoint: &str) -> Controller {
        Controller(self.command("one").env("FAILPOINTS", format!("{failpoint}=panic")).spawn().unwrap())
    }

    pub fn put(&self, key: &str, dump: &str) {
        self.testbed.put_object(&self.bucket, key, dump.as_bytes());
    }

    /// A database whose dumps are below a prefix of its name.
    pub async fn database(&self, name: &str, more: &Value) -> Database {
        let (user, group) = engine_user();
        let s3 = json!({
            "endpoint": self.testbed.s3().endpoint, "bucket": self.bucket, "prefix": format!("{name}/"),
            "credentials": { "secret": "s3" },
        });
        let mut object = json!({
            "apiVersion": "aldaas.dev/v1alpha1", "kind": "Database", "metadata": { "name": name },
            "spec": {
                "engine": { "image": "postgres:15", "runAsUser": user, "runAsGroup": group },
                "source": { "s3": s3, "interval": "2s" },
                "storage": { "size": "1Gi" },
                "check": { "sql": ["SELECT count(*) = 100 FROM customer"] },
            },
        });
        merge(&mut object["spec"], more);
        create(&self.databases(), object).await
    }

    pub async fn change(&self, name: &str, patch: &Value) {
        self.databases().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    pub async fn images_of(&self, database: &str) -> Vec<GoldenImage> {
        let mut images = self.images().list(&ListParams::default()).await.unwrap().items;
        images.retain(|image| image.spec.database == database);
        images.sort_by_key(|image| image.name_any());
        images
    }

    /// Waits until this many images of a database are ready; the newest.
    pub async fn ready(&self, database: &str, count: usize) -> GoldenImage {
        let what = format!("{count} images of {database} are ready");
        self.until(&what, async || {
            let mut ready = self.images_of(database).await;
            ready.retain(|image| condition(image, "Ready").0 == "True");
            (ready.len() == count).then(|| ready.pop()).flatten()
        })
        .await
    }

    /// Waits until the newest image of a database says this.
    pub async fn reason(&self, database: &str, reason: &str) -> GoldenImage {
        let what = format!("the newest image of {database} is {reason}");
        self.until(&what, async || {
            let image = self.images_of(database).await.pop()?;
            (condition(&image, "Ready").1 == reason).then_some(image)
        })
        .await
    }

    /// A condition of a database: status, reason, message.
    pub async fn says(&self, database: &str, kind: &str) -> (String, String, String) {
        let object = self.databases().get_status(database).await.unwrap();
        let conditions = object.status.unwrap_or_default().conditions;
        let found = conditions.into_iter().find(|condition| condition.type_ == kind);
        found.map_or_else(Default::default, |c| (c.status, c.reason, c.message))
    }

    pub async fn until<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            if start.elapsed() > LIMIT {
                self.dump().await;
                panic!("in vain: {what}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// All there is, for a test that failed.
    async fn dump(&self) {
        for database in self.databases().list(&ListParams::default()).await.into_iter().flatten() {
            eprintln!("{}", json!({ "database": database.name_any(), "status": database.status }));
        }
        for image in self.images().list(&ListParams::default()).await.into_iter().flatten() {
            eprintln!(
                "{}",
                json!({ "image": image.name_any(), "meta": image.metadata.finalizers, "spec": image.spec, "status": image.status })
            );
        }
        for image in self.store.golden_images().into_iter().flatten() {
            eprintln!("rbd {} {:?} {:?}", image.name, image.record.state, image.record.reason);
        }
        eprintln!("{}", self.machine.written());
    }

    /// Reasons of the Events about an object.
    pub async fn events_about(&self, name: &str) -> Vec<String> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), "default");
        let all = events.list(&ListParams::default()).await.unwrap();
        let about = all.into_iter().filter(|event| event.involved_object.name.as_deref() == Some(name));
        about.filter_map(|event| event.reason).collect()
    }

    /// Nothing but golden images and their objects is left.
    pub async fn assert_clean(&self) {
        self.until("Jobs, pods, manifests and clones are gone", async || {
            let none = ListParams::default();
            let jobs: Api<k8s_openapi::api::batch::v1::Job> = Api::namespaced(self.client.clone(), NAMESPACE);
            let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
            let maps: Api<k8s_openapi::api::core::v1::ConfigMap> =
                Api::namespaced(self.client.clone(), NAMESPACE);
            let left = jobs.list(&none).await.ok()?.items.len()
                + pods.list(&none).await.ok()?.items.len()
                + maps.list(&none).await.ok()?.items.len();
            // A pod goes before the machine has taken its volumes away.
            let clones = self.store.list_clones(1, &Default::default()).ok()?.len();
            (left + clones == 0).then_some(())
        })
        .await;
    }

    pub async fn delete<K>(&self, api: Api<K>, name: &str)
    where
        K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
    {
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// A page of the controller.
    pub async fn page(&self, path: &str) -> Option<(u16, String)> {
        request(self.http, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await
    }

    /// Tells the controller that there is something new.
    pub async fn notify(&self, key: &str) -> u16 {
        let body =
            json!({ "Records": [{ "s3": { "bucket": { "name": self.bucket }, "object": { "key": key } } }] });
        let body = body.to_string();
        let head = format!(
            "POST /events HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        request(self.events, &format!("{head}{body}")).await.map_or(0, |(code, _)| code)
    }
}

async fn request(port: u16, text: &str) -> Option<(u16, String)> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    stream.write_all(text.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let code = answer.split(' ').nth(1)?.parse().ok()?;
    Some((code, answer))
}

impl Controller {
    /// Ends it as Kubernetes does.
    pub async fn stop(mut self) {
        let pid = rustix::process::Pid::from_raw(self.0.id().unwrap().cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(20), self.0.wait()).await;
        assert!(ended.expect("it ends in time").unwrap().success());
    }

    /// Waits until a failpoint has killed it.
    pub async fn killed(mut self, at: &str) {
        let ended = tokio::time::timeout(LIMIT, self.0.wait()).await;
        let ended = ended.unwrap_or_else(|_| panic!("it never came to {at}")).unwrap();
        assert!(!ended.success());
    }
}

/// Status, reason and message.
pub fn condition(image: &GoldenImage, kind: &str) -> (String, String, String) {
    let conditions = image.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
    let found = conditions.into_iter().find(|condition| condition.type_ == kind);
    found.map_or_else(Default::default, |c| (c.status, c.reason, c.message))
}

async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: Clone + serde::de::DeserializeOwned + serde::Serialize + std::fmt::Debug,
{
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
}

fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            more.iter().for_each(|(key, value)| merge(into.entry(key.clone()).or_insert(Value::Null), value));
        }
        (into, more) => *into = more.clone(),
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Engines refuse to run as root.
fn engine_user() -> (u32, u32) {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.starts_with("postgres:")).expect("there is a user postgres");
    let mut fields = line.split(':').skip(2).map(|field| field.parse().unwrap());
    (fields.next().unwrap(), fields.next().unwrap())
}
