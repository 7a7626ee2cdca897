//! Volumes by hand: what the other programs do through the library, one call at a time.
//!
//! ```text
//! cargo run --example by_hand -- --run-dir /run/aldaas open aldaas clone mine --golden orders-1 --database orders
//! ```
//!
//! The tests use it as the caller that is killed between two steps, and in a guest whose kernel has rbd.

use std::path::PathBuf;
use std::process::ExitCode;

use aldaas_rbd::ConnectOptions;
use aldaas_volume::{
    AttachMode, Error, Filesystem, ImageSpec, Marker, NewVolume, Node, NodeConfig, OpenVolume,
};
use clap::{Args, Parser, Subcommand};

#[derive(Debug, Parser)]
struct Cli {
    #[arg(long, env = "ALDAAS_RUN_DIR", default_value = "/run/aldaas")]
    run_dir: PathBuf,
    #[arg(long, env = "ALDAAS_CEPH_CONF")]
    ceph_conf: Option<PathBuf>,
    #[arg(long, default_value = "auto")]
    attach: AttachMode,
    #[arg(long, default_value = "aldaas-fuse")]
    fuse_program: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a file system on a blank image and mount it.
    Create {
        #[command(flatten)]
        image: Image,
        #[command(flatten)]
        marker: MarkerArgs,
        #[arg(long, default_value = "ext4")]
        filesystem: Filesystem,
    },
    /// Mount an image.
    Open {
        #[command(flatten)]
        image: Image,
        #[command(flatten)]
        marker: MarkerArgs,
        #[arg(long)]
        read_only: bool,
        #[arg(long)]
        own_client: bool,
    },
    /// Unmount and detach an image.
    Close {
        #[command(flatten)]
        image: Image,
    },
    /// Unmount and detach an image without writing out what isn't written.
    Discard {
        #[command(flatten)]
        image: Image,
    },
    /// Show all volumes below the run directory.
    List,
}

#[derive(Debug, Args)]
struct Image {
    pool: String,
    /// Rados namespace.
    namespace: String,
    image: String,
}

#[derive(Debug, Args)]
struct MarkerArgs {
    /// Golden image that the marker names.
    #[arg(long)]
    golden: String,
    /// Database that the marker names.
    #[arg(long)]
    database: String,
}

impl From<Image> for ImageSpec {
    fn from(image: Image) -> Self {
        Self::new(image.pool, image.namespace, image.image)
    }
}

impl From<MarkerArgs> for Marker {
    fn from(args: MarkerArgs) -> Self {
        Self { golden_image: args.golden, database: args.database }
    }
}

fn main() -> ExitCode {
    let _points = fail::FailScenario::setup();
    die_at_failpoints();
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

/// A failpoint panics; a crash is a crash only when nothing is cleaned up after it.
fn die_at_failpoints() {
    std::panic::set_hook(Box::new(|info| {
        eprintln!("{info}");
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }));
}

fn run(cli: Cli) -> Result<(), Error> {
    let ceph = ConnectOptions { conf: cli.ceph_conf, ..ConnectOptions::default() };
    let node = Node::new(NodeConfig {
        run_dir: cli.run_dir,
        ceph,
        attach: cli.attach,
        fuse_program: cli.fuse_program,
        fuse_server: Default::default(),
    })?;
    match cli.command {
        Command::Create { image, marker, filesystem } => {
            let marker = marker.into();
            let new = NewVolume { filesystem, marker: &marker, owner: (0, 0) };
            println!("{}", node.create(&image.into(), &new)?.data.display());
        }
        Command::Open { image, marker, read_only, own_client } => {
            let marker = marker.into();
            let mut want = OpenVolume::writable(&marker);
            want.read_only = read_only;
            want.own_client = own_client;
            let mounted = node.open(&image.into(), &want)?;
            println!("{} {}", mounted.device.display(), mounted.data.display());
        }
        Command::Close { image } => node.close(&image.into())?,
        Command::Discard { image } => node.discard(&image.into())?,
        Command::List => node.inventory()?.iter().for_each(|observed| println!("{observed:?}")),
    }
    Ok(())
}
