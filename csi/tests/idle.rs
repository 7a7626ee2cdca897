//! Idleness, measured on real Postgres servers in network and mount namespaces of their own, as a pod's container is.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;
mod reaping;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aldaas_api::GoldenImageName;
use aldaas_api::manifest::{Contents, Engine, Manifest, Source};
use aldaas_golden::GOLDEN;
use aldaas_volume::{Filesystem, ImageSpec, NewVolume};
use common::PATIENCE;
use reaping::{PORT, Rig, clone_of};
use rustix::process::Pid;

const TTL: Duration = Duration::from_secs(4);
const UID: &str = "4b0e6b1e-7a4d-4c3a-9d60-0b6a2b8b5a77";

/// A program of the newest Postgres that is installed.
fn postgres(program: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("Postgres is missing: run hack/deps");
    let mut found: Vec<PathBuf> = versions
        .flatten()
        .map(|version| version.path().join("bin").join(program))
        .filter(|p| p.exists())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| panic!("{program} is missing: run hack/deps"))
}

fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A golden image with an empty Postgres on it.
fn build(rig: &Rig) -> GoldenImageName {
    let id = |flag: &str| run(Command::new("id").args([flag, "postgres"])).trim().parse::<u32>().unwrap();
    let name = common::image("orders", 1);
    let candidate = rig.golden.store.begin(&name, 512 << 20, "-").unwrap();
    let spec = ImageSpec::new(rig.pool.name(), GOLDEN, name.to_string());
    let marker = aldaas_volume::Marker { golden_image: name.to_string(), database: "orders".into() };
    let new = NewVolume { filesystem: Filesystem::Ext4, marker: &marker, owner: (id("-u"), id("-g")) };
    let mounted = rig.golden.node.create(&spec, &new).unwrap();
    let data = &mounted.data;
    run(as_postgres(&postgres("initdb")).arg("-D").arg(data).args([
        "-A",
        "trust",
        "--no-sync",
        "--locale",
        "C",
    ]));
    rig.golden.node.close_trimmed(&spec).unwrap();
    candidate.seal(&manifest()).unwrap();
    candidate.ready().unwrap();
    name
}

fn manifest() -> Manifest {
    let source =
        Source { location: "-".into(), etag: None, size: 1, sha256: "0".repeat(64), format: "none".into() };
    Manifest {
        database: "orders".into(),
        source,
        engine: Engine { name: "postgres".into(), version: "15".into(), image_digest: None },
        contents: Contents { tables: 0, rows: 0, bytes: 0 },
        steps: Default::default(),
        ran: Vec::new(),
        finished_at: jiff::Timestamp::now(),
    }
}

fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(program);
    command
}

/// A cgroup of a pod, in any hierarchy in which one can be made.
struct Cgroup(PathBuf);

impl Cgroup {
    fn of_pod(uid: &str) -> Self {
        let roots =
            ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/systemd"];
        let slice = format!("kubepods-besteffort-pod{}.slice", uid.replace('-', "_"));
        let made = roots.iter().map(|root| Path::new(root).join(&slice)).find(|path| {
            path.parent().is_some_and(|root| root.join("cgroup.procs").exists())
                && (path.is_dir() || std::fs::create_dir(path).is_ok())
        });
        Self(made.expect("no cgroup can be made: run the tests as root, with /sys/fs/cgroup writable"))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Busy until the last process in it is reaped.
        let begun = Instant::now();
        while std::fs::remove_dir(&self.0).is_err() && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// psql in the container's network, through TCP.
fn psql(container: &Child, sql: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{}/ns/net", container.id())).args(["psql", "-h", "127.0.0.1"]);
    command.args(["-p", &PORT.to_string(), "-U", "postgres", "-At", "-c", sql]);
    command.stdin(Stdio::null());
    command
}

/// A Postgres on the data in `target`, in namespaces of its own.
struct Container {
    child: Child,
    server: Pid,
    _sockets: tempfile::TempDir,
}

impl Container {
    fn start(target: &Path, cgroup: Option<&Cgroup>) -> Self {
        let sockets = tempfile::tempdir().unwrap();
        std::fs::set_permissions(sockets.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777))
            .unwrap();
        let script = r#"
            if [ -n "$CGROUP" ]; then echo $$ > "$CGROUP/cgroup.procs"; fi
            ip link set lo up
            exec runuser -u postgres -- "$0" -D "$1" -p "$2" -k "$3" -c listen_addresses=127.0.0.1"#;
        let mut command = aldaas_testbed::own_mounts(&["--net"]);
        command.args(["sh", "-c", script]).arg(postgres("postgres")).arg(target).arg(PORT.to_string());
        command.arg(sockets.path()).env("CGROUP", cgroup.map_or(Path::new(""), |cgroup| &cgroup.0));
        let log = std::fs::File::create(sockets.path().join("log")).unwrap();
        let child =
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let begun = Instant::now();
        while !psql(&child, "SELECT 1").output().unwrap().status.success() {
            let log = std::fs::read_to_string(sockets.path().join("log")).unwrap();
            assert!(begun.elapsed() < PATIENCE, "{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        let pid = std::fs::read_to_string(target.join("postmaster.pid")).unwrap();
        let server = Pid::from_raw(pid.lines().next().unwrap().parse().unwrap()).unwrap();
        Self { child, server, _sockets: sockets }
    }

    /// A client that stays connected.
    fn connect(&self) -> Client {
        let mut command = psql(&self.child, "SELECT pg_sleep(1000)");
        let client = Client(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let begun = Instant::now();
        loop {
            let clients = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(1000)'";
            let count = run(&mut psql(&self.child, clients));
            if count.trim() == "1" {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{count:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        client
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.server, rustix::process::Signal::QUIT);
        let _ = self.child.wait();
    }
}

struct Client(Child);

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn explained(rig: &Rig, uid: &str) -> (String, u64) {
    let answer = rig.reaper.explain(uid);
    let one = answer.explanations.first().cloned().unwrap_or_default();
    (one.r#use, one.idle_seconds.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_deleted_when_nobody_has_used_its_database_for_its_ttl_and_not_before() {
    let mut rig = Rig::new(Duration::from_millis(600));
    let image = build(&rig);
    let before = rig.census();
    let ttl = [("ttl", "4s")];
    let (by_cgroup, by_mount) = (rig.pod(UID, &image, &ttl).await, rig.pod("by-mount", &image, &[]).await);
    rig.pass().await;
    assert!(explained(&rig, UID).0.contains("no process of its pod"), "{:?}", explained(&rig, UID));

    let cgroup = Cgroup::of_pod(UID);
    let (database, other) = (Container::start(&by_cgroup, Some(&cgroup)), Container::start(&by_mount, None));
    let (client, other_client) = (database.connect(), other.connect());
    rig.pass_for(TTL + Duration::from_secs(2)).await;
    assert_eq!(explained(&rig, UID), (format!("1 TCP connection(s) to port {PORT}"), 0));
    // A mount namespace that was not emptied, as a container's is, holds the other one's mount too.
    assert_eq!(explained(&rig, "by-mount"), (format!("2 TCP connection(s) to port {PORT}"), 0));
    assert!(rig.change(|world| world.deleted.is_empty()));

    // Disconnected, and the plugin is restarted while it counts.
    drop((client, other_client));
    let begun = Instant::now();
    rig.pass_until("it idles", || explained(&rig, UID).1 >= 1).await;
    rig.restart();
    rig.pass().await;
    assert!(explained(&rig, UID).1 >= 1 && explained(&rig, "by-mount").0.contains("no TCP connection"));
    rig.pass_until("the pod is deleted", || rig.change(|world| !world.deleted.is_empty())).await;
    assert!(begun.elapsed() >= TTL, "{:?}", begun.elapsed());
    let deleted = rig.change(|world| world.deleted.clone());
    assert_eq!((deleted.len(), deleted[0].0.as_str()), (1, UID));
    for part in ["CloneIdle: ", "no TCP connection to port 5432", "the engine's own"] {
        assert!(deleted[0].1.contains(part), "{deleted:?}");
    }

    // Without a TTL nothing is deleted; block I/O alone is use.
    std::fs::write(by_mount.join("written"), vec![7; 16 << 20]).unwrap();
    run(Command::new("sync").arg("-f").arg(&by_mount));
    rig.pass().await;
    assert!(
        explained(&rig, "by-mount").0.contains("KiB read or written"),
        "{:?}",
        explained(&rig, "by-mount")
    );
    assert!(rig.has(&clone_of("by-mount")));
    let text = rig.parts.metrics.encode();
    let written = text.lines().find_map(|line| line.strip_prefix("aldaas_clone_written_bytes_total "));
    assert!(written.unwrap().parse::<u64>().unwrap() >= 16 << 20, "{text}");

    drop((database, other));
    rig.gone("by-mount");
    rig.pass_until_census(&before).await;
}
