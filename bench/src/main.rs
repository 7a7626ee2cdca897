//! The figures that aldaas promises, as ratios: what is measured and what it is held against run in turns, on the same
//! cluster, so that a busy machine slows both.
//!
//! `make bench` starts a cluster and calls this once for each group; the figures go to `target/bench/<group>.json`.

mod clones;
mod figure;
mod node_plugin;
mod part;
mod reaper;
mod run;
mod sample;
mod volume;
mod webhook;

use std::path::{Path, PathBuf};

use aldaas_api::DatabaseName;
use aldaas_golden::Store;
use aldaas_rbd as rbd;
use clap::{Args, Parser, Subcommand};
use figure::Figure;
use part::{Only, Part};

/// Measures aldaas' figures on a running cluster.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Where the figures go
    #[arg(long)]
    json: PathBuf,
    #[command(subcommand)]
    group: Group,
}

#[derive(Args)]
struct ClusterArgs {
    /// Ceph's configuration file
    #[arg(long, env = "ALDAAS_CEPH_CONF", default_value = "/etc/ceph/ceph.conf")]
    ceph_conf: PathBuf,
    /// The pool
    #[arg(long, default_value = "aldaas")]
    pool: String,
}

#[derive(Subcommand)]
enum Group {
    /// Clones in RBD, and `aldaas run`
    OneMachine(OneMachine),
    /// Volumes, and the node plugin on them
    NodePlugin(NodePlugin),
    /// The webhook, which needs no Ceph
    Webhook(Webhook),
}

#[derive(Args)]
struct Webhook {
    /// The program `aldaas-webhook`
    #[arg(long)]
    program: PathBuf,
}

#[derive(Args)]
struct OneMachine {
    /// The command `aldaas`
    #[arg(long)]
    aldaas: PathBuf,
    /// A pgbench database that was ingested into the pool, for `aldaas run`, which is not measured without one
    #[arg(long)]
    database: Option<DatabaseName>,
    /// The same by hand, from the shell
    #[arg(long)]
    by_hand: PathBuf,
    #[command(flatten)]
    only: Only,
}

#[derive(Args)]
struct NodePlugin {
    /// The directory with the programs
    #[arg(long)]
    programs: PathBuf,
    /// A directory for sockets and mounts
    #[arg(long)]
    run_dir: PathBuf,
    /// A pgbench database that was ingested into the pool, for the object sizes, which are not measured without one
    #[arg(long)]
    database: Option<DatabaseName>,
    #[command(flatten)]
    only: Only,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    if let Group::Webhook(args) = &cli.group {
        return figure::report(&webhook::measure(&args.program)?, &cli.json);
    }
    let options = rbd::ConnectOptions {
        conf: Some(cli.cluster.ceph_conf.clone()),
        overrides: vec![("admin_socket".into(), "$run_dir/$cluster-$name.$pid.$cctid.asok".into())],
        ..Default::default()
    };
    let cluster = rbd::Cluster::connect(&options)?;
    let store = Store::open(&cluster, &rbd::PoolName::new(cli.cluster.pool)?)?;
    let figures = match &cli.group {
        Group::OneMachine(args) => one_machine(args, &cluster, &store)?,
        Group::NodePlugin(args) => node_plugin(args, &cli.cluster.ceph_conf, &cluster, &store)?,
        Group::Webhook(_) => Vec::new(),
    };
    figure::report(&figures, &cli.json)
}

fn one_machine(args: &OneMachine, cluster: &rbd::Cluster, store: &Store) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    if [Part::Clone, Part::Size, Part::Storm].into_iter().any(|part| args.only.wants(part)) {
        figures.extend(clones::measure(cluster, store, &args.only)?);
    }
    if let (Some(database), true) = (&args.database, args.only.wants(Part::Run)) {
        figures.extend(run::measure(&args.aldaas, &args.by_hand, &store.latest(database)?.name)?);
    }
    Ok(figures)
}

fn node_plugin(
    args: &NodePlugin,
    conf: &Path,
    cluster: &rbd::Cluster,
    store: &Store,
) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    if node_plugin::PARTS.into_iter().any(|part| args.only.wants(part)) {
        let bed =
            node_plugin::Bed { ceph_conf: conf, programs: &args.programs, dir: &args.run_dir.join("plugin") };
        let runtime = tokio::runtime::Runtime::new()?;
        figures.extend(runtime.block_on(node_plugin::measure(&bed, cluster, store, &args.only))?);
    }
    if args.only.wants(Part::Reaper) {
        figures.extend(reaper::measure(conf, cluster, &args.run_dir)?);
    }
    let bench = volume::Bench::new(store, conf, &args.programs.join("aldaas-fuse"), &args.run_dir)?;
    figures.extend(bench.measure(args.database.as_ref(), &args.only)?);
    Ok(figures)
}
