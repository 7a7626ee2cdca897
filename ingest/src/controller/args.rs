//! What can be asked for on the command line. Every flag doubles as an environment variable, and is read nowhere else.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use aldaas_api::Ttl;
use aldaas_rbd as rbd;
use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};

use super::config::{Config, JobSettings, Placement};

/// The controller of aldaas: makes golden images of the dumps that appear in a bucket, and takes old ones away.
///
/// It watches Database and GoldenImage objects and the buckets that they name, runs one Job to restore a dump into a blank
/// volume and one to check the result on a clone, and says on the objects how far it is and what went wrong.
#[derive(Debug, Parser)]
#[command(name = "aldaas-ingest", version, max_term_width = 110)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run until told to stop
    Serve(Box<Serve>),
}

/// Flags of `serve`.
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// kubeconfig; nothing: the pod's own service account
    #[arg(long, env = "ALDAAS_KUBECONFIG", value_name = "PATH", help_heading = "Kubernetes")]
    kubeconfig: Option<PathBuf>,
    /// Namespace that aldaas itself runs in: its Jobs run there, and the Secrets for buckets are there
    #[arg(long, env = "ALDAAS_NAMESPACE", default_value = "aldaas", help_heading = "Kubernetes")]
    namespace: String,
    /// Name of this replica, the name of its pod; nothing: the machine's name and a number
    #[arg(long, env = "ALDAAS_POD", value_name = "NAME", help_heading = "Kubernetes")]
    pod: Option<String>,
    /// Address for /healthz, /readyz and /metrics, e.g. 0.0.0.0:9810; nothing: not served
    #[arg(long, env = "ALDAAS_HTTP", value_name = "ADDRESS:PORT", help_heading = "Kubernetes")]
    http: Option<SocketAddr>,
    /// How often everything is looked at, even if nothing seems to have happened
    #[arg(long, env = "ALDAAS_RESYNC", default_value = "1m", help_heading = "Kubernetes")]
    resync: Ttl,
    /// Container image of aldaas, from which Jobs take the program aldaas-restore
    #[arg(long, env = "ALDAAS_IMAGE", help_heading = "Jobs")]
    image: String,
    /// When that image is pulled: Always, IfNotPresent or Never
    #[arg(long, env = "ALDAAS_PULL_POLICY", value_name = "POLICY", help_heading = "Jobs")]
    pull_policy: Option<String>,
    /// Secret with which that image is pulled; may be given several times
    #[arg(
        long,
        env = "ALDAAS_PULL_SECRETS",
        value_name = "NAME",
        value_delimiter = ',',
        help_heading = "Jobs"
    )]
    pull_secret: Vec<String>,
    /// Directory on the nodes that holds aldaas-restore; nothing: an init container lays it into each Job's pod
    #[arg(long, env = "ALDAAS_JOB_PROGRAM_DIR", value_name = "PATH", help_heading = "Jobs")]
    job_program_dir: Option<PathBuf>,
    /// Service account of the Jobs
    #[arg(long, env = "ALDAAS_JOB_ACCOUNT", default_value = "aldaas-jobs", help_heading = "Jobs")]
    job_account: String,
    /// Where the Jobs may run, as JSON: these fields of a pod's spec: nodeSelector, tolerations, affinity, priorityClassName
    #[arg(
        long,
        env = "ALDAAS_JOB_PLACEMENT",
        value_name = "JSON",
        default_value = "{}",
        help_heading = "Jobs"
    )]
    job_placement: Placement,
    /// Ceph's configuration file
    #[arg(long, env = "ALDAAS_CEPH_CONF", default_value = "/etc/ceph/ceph.conf", help_heading = "Ceph")]
    ceph_conf: PathBuf,
    /// Ceph user, without `client.`
    #[arg(long, env = "ALDAAS_CEPH_USER", default_value = "admin", help_heading = "Ceph")]
    ceph_user: String,
    /// Time after which a Ceph that does not answer counts as away
    #[arg(long, env = "ALDAAS_CEPH_TIMEOUT", default_value = "30s", help_heading = "Ceph")]
    ceph_timeout: Ttl,
    /// Pool that holds golden images and clones
    #[arg(long, env = "ALDAAS_POOL", default_value = "aldaas", help_heading = "Ceph")]
    pool: String,
    /// Address for POST /events, where buckets tell of new objects, e.g. 0.0.0.0:9811; nothing: not served
    #[arg(long, env = "ALDAAS_EVENTS", value_name = "ADDRESS:PORT", help_heading = "Buckets")]
    events: Option<SocketAddr>,
    /// File with a token that notifications must bear, as `Authorization: Bearer` or `?token=`
    #[arg(long, env = "ALDAAS_EVENTS_TOKEN_FILE", value_name = "PATH", help_heading = "Buckets")]
    events_token_file: Option<PathBuf>,
    /// The program aldaas-restore, which lists buckets; nothing: the one beside this program
    #[arg(long, env = "ALDAAS_RESTORE_PROGRAM", value_name = "PATH", help_heading = "Buckets")]
    restore_program: Option<PathBuf>,
}

impl Serve {
    /// Checks what can be checked without touching anything but the token's file.
    ///
    /// # Errors
    /// When something given means nothing.
    pub fn config(self) -> Result<Config> {
        if let Some(policy) = &self.pull_policy
            && !["Always", "IfNotPresent", "Never"].contains(&policy.as_str())
        {
            bail!("--pull-policy {policy:?} is none: write Always, IfNotPresent or Never");
        }
        let beside = || Ok::<_, anyhow::Error>(std::env::current_exe()?.with_file_name("aldaas-restore"));
        let timeout = self.ceph_timeout.duration();
        Ok(Config {
            kubeconfig: self.kubeconfig,
            namespace: self.namespace,
            identity: self.pod.filter(|name| !name.is_empty()).unwrap_or_else(own_name),
            jobs: JobSettings {
                image: self.image,
                pull_policy: self.pull_policy,
                program: self.job_program_dir,
                pull_secrets: self.pull_secret.into_iter().filter(|name| !name.is_empty()).collect(),
                account: self.job_account,
                placement: self.job_placement,
            },
            ceph: rbd::ConnectOptions {
                conf: Some(self.ceph_conf),
                user: self.ceph_user,
                connect_timeout: timeout.min(Duration::from_secs(10)),
                operation_timeout: timeout,
                ..Default::default()
            },
            pool: self.pool.parse().context("--pool")?,
            restore_program: self.restore_program.map_or_else(beside, Ok)?,
            http: self.http,
            events: self.events,
            events_token: self.events_token_file.map(token).transpose()?,
            resync: self.resync.duration(),
        })
    }
}

fn token(file: PathBuf) -> Result<String> {
    let read = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    match read.trim() {
        "" => bail!("{} is empty: write a token into it, or leave --events-token-file out", file.display()),
        token => Ok(token.to_owned()),
    }
}

/// Two replicas on one machine are told apart by their process ids.
fn own_name() -> String {
    let machine = rustix::system::uname();
    format!("{}-{}", machine.nodename().to_string_lossy(), std::process::id())
}
