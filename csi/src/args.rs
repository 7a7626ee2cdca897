//! What can be asked for on the command line. Every flag doubles as an environment variable, and is read nowhere else.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use aldaas_api::Ttl;
use aldaas_rbd as rbd;
use aldaas_volume::{AttachMode, FuseServer};
use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};

use crate::config::{Config, Objects, Registration};

/// The node plugin of aldaas: gives pods clones of golden images through CSI, and takes them away again.
///
/// It runs once on every node. kubelet calls it over a unix socket; it clones in Ceph, attaches, mounts, and puts the clone's
/// data where the pod expects it. What crashes leave behind, it finds and removes, and it can say why (`aldaas-csi explain`).
#[derive(Debug, Parser)]
#[command(name = "aldaas-csi", version, max_term_width = 110)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve CSI on a unix socket until told to stop
    Serve(Box<Serve>),
    /// Say why the clones of this node are kept or go
    Explain(Explain),
}

/// Flags of `explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXPLAIN_EXAMPLES)]
pub struct Explain {
    /// A volume id, a clone's name, a pod's UID or NAMESPACE/POD; nothing: everything that this node answers for
    #[arg(default_value = "", hide_default_value = true)]
    what: String,
    /// How to print it: table, for people, or json, for programs
    #[arg(short, long, value_enum, default_value_t = Output::Table, hide_possible_values = true)]
    output: Output,
    /// Socket on which the plugin of this node serves CSI
    #[arg(long, env = "ALDAAS_CSI_ENDPOINT", default_value = ENDPOINT)]
    endpoint: String,
}

const ENDPOINT: &str = "unix:///var/lib/kubelet/plugins/csi.aldaas.dev/csi.sock";
const EXPLAIN_EXAMPLES: &str = "\
Examples:
  aldaas-csi explain                     every clone of this node, and why it is kept or goes
  aldaas-csi explain shop/web-7d9f-x2x   the clones of one pod";

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Table,
    Json,
}

impl Explain {
    /// Asks the plugin, and prints what it says.
    ///
    /// # Errors
    /// When it does not run, or knows nothing of it.
    pub fn run(self) -> Result<()> {
        let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
        let (endpoint, as_json) = (socket(&self.endpoint)?, self.output == Output::Json);
        let said = runtime.block_on(crate::reaper::explain::ask(&endpoint, &self.what, as_json))?;
        print!("{said}");
        Ok(())
    }
}

/// Flags of `serve`.
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// Socket on which CSI is served
    #[arg(
        long,
        env = "ALDAAS_CSI_ENDPOINT",
        default_value = ENDPOINT,
        help_heading = "kubelet"
    )]
    endpoint: String,
    /// Registration socket, in kubelet's plugins_registry; nothing: do not register
    #[arg(long, env = "ALDAAS_CSI_REGISTRATION", value_name = "PATH", help_heading = "kubelet")]
    registration: Option<PathBuf>,
    /// The CSI socket as kubelet sees it, where that differs from --endpoint
    #[arg(long, env = "ALDAAS_CSI_KUBELET_ENDPOINT", value_name = "PATH", help_heading = "kubelet")]
    kubelet_endpoint: Option<PathBuf>,
    /// kubelet's directory; volumes are published below it and nowhere else
    #[arg(long, env = "ALDAAS_KUBELET_DIR", default_value = "/var/lib/kubelet", help_heading = "kubelet")]
    kubelet_dir: PathBuf,
    /// This node's name in Kubernetes
    #[arg(long, env = "ALDAAS_NODE", help_heading = "Kubernetes")]
    node: String,
    /// kubeconfig; nothing: the pod's own service account
    #[arg(
        long,
        env = "KUBECONFIG",
        value_name = "PATH",
        conflicts_with = "objects",
        help_heading = "Kubernetes"
    )]
    kubeconfig: Option<PathBuf>,
    /// Read Databases, Namespaces, Pods and Nodes from this file instead of a Kubernetes: a List as JSON, read anew when it changes
    #[arg(long, env = "ALDAAS_OBJECTS", value_name = "PATH", help_heading = "Kubernetes")]
    objects: Option<PathBuf>,
    /// Namespace that aldaas itself runs in
    #[arg(long, env = "ALDAAS_NAMESPACE", default_value = "aldaas", help_heading = "Kubernetes")]
    namespace: String,
    /// Service account of aldaas' ingest Jobs, which alone may use build and candidate volumes
    #[arg(long, env = "ALDAAS_INGEST_ACCOUNT", default_value = "aldaas-ingest", help_heading = "Kubernetes")]
    ingest_account: String,
    /// Address for /healthz, /readyz and /metrics, e.g. 0.0.0.0:9808; nothing: not served
    #[arg(long, env = "ALDAAS_HTTP", value_name = "ADDRESS:PORT", help_heading = "Kubernetes")]
    http: Option<SocketAddr>,
    /// Ceph's configuration file
    #[arg(long, env = "ALDAAS_CEPH_CONF", default_value = "/etc/ceph/ceph.conf", help_heading = "Ceph")]
    ceph_conf: PathBuf,
    /// Ceph user, without `client.`
    #[arg(long, env = "ALDAAS_CEPH_USER", default_value = "admin", help_heading = "Ceph")]
    ceph_user: String,
    /// Time after which a Ceph that does not answer counts as away. The I/O of mounted clones waits for ever
    #[arg(long, env = "ALDAAS_CEPH_TIMEOUT", default_value = "30s", help_heading = "Ceph")]
    ceph_timeout: Ttl,
    /// Pool that holds golden images and clones
    #[arg(long, env = "ALDAAS_POOL", default_value = "aldaas", help_heading = "Ceph")]
    pool: String,
    /// How images become devices: auto, krbd or fuse
    #[arg(long, env = "ALDAAS_ATTACH", default_value = "auto", help_heading = "Volumes")]
    attach: AttachMode,
    /// Where volumes are kept on this machine
    #[arg(long, env = "ALDAAS_RUN_DIR", default_value = "/run/aldaas", help_heading = "Volumes")]
    run_dir: PathBuf,
    /// The program aldaas-fuse; nothing: the one beside this program
    #[arg(long, env = "ALDAAS_FUSE_PROGRAM", value_name = "PATH", help_heading = "Volumes")]
    fuse_program: Option<PathBuf>,
    /// aldaas-fuse runs by itself on this node, e.g. in a pod of its own: wait for it, and never start one
    #[arg(long, env = "ALDAAS_EXTERNAL_FUSE", help_heading = "Volumes")]
    external_fuse: bool,
    /// How often the reaper looks for clones that nobody needs
    #[arg(long, env = "ALDAAS_REAPER_PERIOD", default_value = "30s", help_heading = "Volumes")]
    reaper_period: Ttl,
    /// How long a node may be silent before others may take its named clones; at least a few reaper periods
    #[arg(long, env = "ALDAAS_LEASE", default_value = "90s", help_heading = "Volumes")]
    lease: Ttl,
    /// How many volumes are published or taken away at once; the others wait for their turn
    #[arg(long, env = "ALDAAS_WORKERS", default_value_t = 16, value_parser = clap::value_parser!(u8).range(1..=128), help_heading = "Volumes")]
    workers: u8,
    /// The longest that a call may take: below kubelet's 2 minutes
    #[arg(long, env = "ALDAAS_CALL_TIMEOUT", default_value = "1m50s", help_heading = "Volumes")]
    call_timeout: Ttl,
}

impl Serve {
    /// Checks what can be checked without touching anything.
    pub fn config(self) -> Result<Config> {
        let endpoint = socket(&self.endpoint)?;
        let registration = self.registration.map(|socket| Registration {
            socket,
            endpoint: self.kubelet_endpoint.unwrap_or_else(|| endpoint.clone()),
        });
        if self.node.is_empty() {
            bail!(
                "--node is empty: give this node's name in Kubernetes (the field spec.nodeName of the plugin's own pod)"
            );
        }
        let beside = || Ok::<_, anyhow::Error>(std::env::current_exe()?.with_file_name("aldaas-fuse"));
        let timeout = self.ceph_timeout.duration();
        Ok(Config {
            endpoint,
            registration,
            http: self.http,
            node: self.node,
            kubelet_dir: self.kubelet_dir,
            ceph: rbd::ConnectOptions {
                conf: Some(self.ceph_conf),
                user: self.ceph_user,
                connect_timeout: timeout.min(Duration::from_secs(10)),
                operation_timeout: timeout,
                ..Default::default()
            },
            pool: self.pool.parse().context("--pool")?,
            run_dir: self.run_dir,
            attach: self.attach,
            fuse_program: self.fuse_program.map_or_else(beside, Ok)?,
            fuse_server: if self.external_fuse { FuseServer::External } else { FuseServer::OnDemand },
            objects: self.objects.map_or(Objects::Kubernetes(self.kubeconfig), Objects::File),
            own_namespace: self.namespace,
            ingest_account: self.ingest_account,
            reaper_period: self.reaper_period.duration(),
            lease: self.lease.duration(),
            workers: usize::from(self.workers),
            call_timeout: self.call_timeout.duration(),
        })
    }
}

/// The path in `unix:///path`; a bare absolute path is fine too.
fn socket(endpoint: &str) -> Result<PathBuf> {
    let path = PathBuf::from(endpoint.strip_prefix("unix://").unwrap_or(endpoint));
    match path.is_absolute() {
        true => Ok(path),
        false => bail!("--endpoint {endpoint:?} is no unix socket: write unix:///path/to/csi.sock"),
    }
}
