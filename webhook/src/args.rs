//! What can be asked for on the command line. Every flag doubles as an environment variable, and is read nowhere else.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use aldaas_api::Ttl;
use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};

use crate::certificates::own::Settings;
use crate::certificates::plan::Policy;
use crate::config::{Certificates, Config};
use crate::registration::{Endpoint, Registration};

/// The admission webhook of aldaas: gives pods that ask for a database a volume of it.
#[derive(Debug, Parser)]
#[command(name = "aldaas-webhook", version, max_term_width = 110)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Answer the API server until told to stop
    Serve(Box<Serve>),
    /// Print the MutatingWebhookConfiguration that tells the API server of it, as JSON
    Registration(Register),
}

/// Flags of `serve`.
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// Address for the API server's reviews (TLS)
    #[arg(long, env = "ALDAAS_LISTEN", default_value = "0.0.0.0:9443", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Address for /healthz, /readyz and /metrics
    #[arg(long, env = "ALDAAS_HTTP", default_value = "0.0.0.0:9809", value_name = "ADDRESS:PORT")]
    http: SocketAddr,
    /// kubeconfig; nothing: the pod's own service account
    #[arg(long, env = "KUBECONFIG", value_name = "PATH")]
    kubeconfig: Option<PathBuf>,
    /// Namespace that aldaas itself runs in
    #[arg(long, env = "ALDAAS_NAMESPACE", default_value = "aldaas")]
    namespace: String,
    /// Directory with tls.crt and tls.key that somebody else renews, e.g. a mounted Secret of cert-manager. Nothing: the
    /// webhook makes and renews its certificate itself
    #[arg(long, env = "ALDAAS_TLS_DIR", value_name = "PATH", help_heading = "Certificate")]
    tls_dir: Option<PathBuf>,
    /// Secret in which the webhook keeps the certificate that it makes; the Lease of its writer has the same name
    #[arg(
        long,
        env = "ALDAAS_TLS_SECRET",
        default_value = "aldaas-webhook-tls",
        help_heading = "Certificate"
    )]
    tls_secret: String,
    /// Service under which the API server calls
    #[arg(long, env = "ALDAAS_SERVICE", default_value = "aldaas-webhook", help_heading = "Certificate")]
    service: String,
    /// More names or addresses for the certificate
    #[arg(long, env = "ALDAAS_TLS_NAMES", value_delimiter = ',', help_heading = "Certificate")]
    tls_name: Vec<String>,
    /// MutatingWebhookConfiguration that must trust the certificate
    #[arg(long, env = "ALDAAS_REGISTRATION", default_value = "aldaas", help_heading = "Certificate")]
    registration: String,
    /// This replica's name among the others; nothing: the machine's
    #[arg(long, env = "ALDAAS_POD", help_heading = "Certificate")]
    pod: Option<String>,
    /// How long a certificate is valid; it is renewed when two thirds are over
    #[arg(long, env = "ALDAAS_CERTIFICATE_LIFE", default_value = "90d", help_heading = "Certificate")]
    certificate_life: Ttl,
    /// How long the authority that signs it is valid; renewed likewise
    #[arg(long, env = "ALDAAS_AUTHORITY_LIFE", default_value = "365d", help_heading = "Certificate")]
    authority_life: Ttl,
    /// How long everybody is given to learn of a new authority
    #[arg(long, env = "ALDAAS_OVERLAP", default_value = "10m", help_heading = "Certificate")]
    overlap: Ttl,
    /// How often the certificate is looked at
    #[arg(long, env = "ALDAAS_TLS_PERIOD", default_value = "10s", help_heading = "Certificate")]
    tls_period: Ttl,
    /// How long it still serves after it said that it is not ready any more
    #[arg(long, env = "ALDAAS_DRAIN_DELAY", default_value = "5s")]
    drain_delay: Ttl,
}

impl Serve {
    /// Checks what can be checked without touching anything.
    ///
    /// # Errors
    /// When it makes no sense.
    pub fn config(self) -> Result<Config> {
        if self.namespace.is_empty() {
            bail!("--namespace is empty: give the namespace that aldaas runs in");
        }
        let period = self.tls_period.duration();
        let certificates = match self.tls_dir.clone() {
            Some(dir) => Certificates::Directory(dir, period),
            None => Certificates::Own(Box::new(self.own(period)?)),
        };
        Ok(Config {
            listen: self.listen,
            http: self.http,
            kubeconfig: self.kubeconfig,
            own_namespace: self.namespace,
            certificates,
            drain_delay: self.drain_delay.duration(),
            grace: Duration::from_secs(20),
        })
    }

    fn own(&self, period: Duration) -> Result<Settings> {
        let policy = Policy {
            authority: self.authority_life.duration(),
            certificate: self.certificate_life.duration(),
            overlap: self.overlap.duration(),
        };
        if policy.certificate > policy.authority / 3 || policy.overlap + period > policy.certificate / 6 {
            bail!(
                "--certificate-life must be at most a third of --authority-life, and --overlap and --tls-period together at \
                 most a sixth of --certificate-life"
            );
        }
        let (service, namespace) = (&self.service, &self.namespace);
        let mut names = vec![
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.cluster.local"),
            format!("{service}.{namespace}"),
        ];
        names.extend(self.tls_name.iter().filter(|name| !name.is_empty()).cloned());
        let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned());
        let identity = self
            .pod
            .clone()
            .map_or_else(host, Ok)
            .context("--pod is missing, and this machine has no name")?;
        Ok(Settings {
            namespace: self.namespace.clone(),
            secret: self.tls_secret.clone(),
            identity,
            names,
            registration: self.registration.clone(),
            policy,
            period,
        })
    }
}

/// Flags of `registration`.
#[derive(Debug, clap::Args)]
pub struct Register {
    /// The object's name
    #[arg(long, default_value = "aldaas")]
    name: String,
    /// Namespace that aldaas itself runs in
    #[arg(long, default_value = "aldaas")]
    namespace: String,
    /// The webhook's Service there
    #[arg(long, default_value = "aldaas-webhook")]
    service: String,
    /// https://host:port of a webhook that runs outside, instead of a Service
    #[arg(long)]
    url: Option<String>,
    /// For Kubernetes before 1.28: serve only namespaces with the label aldaas/webhook=enabled
    #[arg(long)]
    by_namespace_label: bool,
}

impl Register {
    /// What is to be registered.
    pub fn registration(self) -> Registration {
        Registration {
            name: self.name,
            own_namespace: self.namespace,
            endpoint: self.url.map_or(Endpoint::Service(self.service), Endpoint::Url),
            match_conditions: !self.by_namespace_label,
            authorities: None,
        }
    }
}
