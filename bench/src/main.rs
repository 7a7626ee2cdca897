//! The figures that aldaas promises, as ratios: what is measured and what it is held against run in turns, on the same
//! cluster, so that a busy machine slows both.
//!
//! `make bench` starts a cluster and calls this; the figures go to `target/bench/`.

mod clones;
mod figure;
mod run;
mod sample;

use std::path::PathBuf;

use aldaas_api::DatabaseName;
use aldaas_golden::Store;
use aldaas_rbd as rbd;
use clap::Parser;

/// Measures one machine's figures on a running cluster.
#[derive(Parser)]
struct Args {
    /// Ceph's configuration file
    #[arg(long, env = "ALDAAS_CEPH_CONF")]
    ceph_conf: PathBuf,
    /// The pool
    #[arg(long)]
    pool: String,
    /// The command `aldaas`
    #[arg(long)]
    aldaas: PathBuf,
    /// A pgbench database that was ingested into the pool, for `aldaas run`, which is not measured without one
    #[arg(long)]
    database: Option<DatabaseName>,
    /// The same by hand, from the shell
    #[arg(long)]
    by_hand: PathBuf,
    /// Where the figures go
    #[arg(long)]
    json: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let options = rbd::ConnectOptions {
        conf: Some(args.ceph_conf.clone()),
        overrides: vec![("admin_socket".into(), "$run_dir/$cluster-$name.$pid.$cctid.asok".into())],
        ..Default::default()
    };
    let cluster = rbd::Cluster::connect(&options)?;
    let store = Store::open(&cluster, &rbd::PoolName::new(args.pool.clone())?)?;
    let mut figures = clones::measure(&cluster, &store)?;
    if let Some(database) = &args.database {
        figures.extend(run::measure(&args.aldaas, &args.by_hand, &store.latest(database)?.name)?);
    }
    figure::report(&figures, &args.json)?;
    Ok(())
}
