//! The figures that aldaas promises, as ratios: what is measured and what it is held against run in turns, on the same
//! cluster, so that a busy machine slows both.
//!
//! `make bench` starts a cluster and calls this once for each group; the figures go to `target/bench/<group>.json`.

mod clones;
mod figure;
mod node_plugin;
mod reaper;
mod run;
mod sample;
mod volume;
mod webhook;

use std::path::PathBuf;

use aldaas_api::DatabaseName;
use aldaas_golden::Store;
use aldaas_rbd as rbd;
use clap::{Args, Parser, Subcommand};

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
    /// Measure only this, to work on it
    #[arg(long, value_enum)]
    only: Option<volume::Part>,
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
        Group::OneMachine(args) => {
            let mut figures = clones::measure(&cluster, &store)?;
            if let Some(database) = &args.database {
                figures.extend(run::measure(&args.aldaas, &args.by_hand, &store.latest(database)?.name)?);
            }
            figures
        }
        Group::NodePlugin(args) => {
            let (conf, programs) = (&cli.cluster.ceph_conf, &args.programs);
            let mut figures = Vec::new();
            if args.only.is_none_or(|only| only == volume::Part::Plugin) {
                let bed = node_plugin::Bed { ceph_conf: conf, programs, dir: &args.run_dir.join("plugin") };
                figures.extend(
                    tokio::runtime::Runtime::new()?.block_on(node_plugin::measure(&bed, &cluster, &store))?,
                );
            }
            if args.only.is_none_or(|only| only == volume::Part::Reaper) {
                figures.extend(reaper::measure(conf, &cluster, &args.run_dir)?);
            }
            let bench = volume::Bench::new(&store, conf, &programs.join("aldaas-fuse"), &args.run_dir)?;
            figures.extend(bench.measure(args.database.as_ref(), args.only)?);
            figures
        }
        Group::Webhook(_) => Vec::new(),
    };
    figure::report(&figures, &cli.json)
}
