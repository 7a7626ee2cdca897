//! What can be asked for. Every flag that configures doubles as an environment variable, and is read nowhere else.

use std::path::PathBuf;

use aldaas_api::{CloneName, DatabaseName, GoldenImageName, ImageRef};
use aldaas_volume::{AttachMode, Filesystem};
use bytesize::ByteSize;
use clap::{Parser, Subcommand, ValueEnum};

/// A writable copy of a production-like database in about a second.
///
/// A dump becomes a golden image once (`aldaas ingest`); from then on everybody gets a writable clone of it, which costs only
/// the blocks that it changes (`aldaas run`, `aldaas clone`).
#[derive(Debug, Parser)]
#[command(name = "aldaas", version, max_term_width = 110, after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  aldaas ingest orders --from s3://backup/orders.sql.gz   a golden image from a dump
  aldaas images                                           what there is, and what is latest
  aldaas run orders:latest                                a database until Ctrl-C
  aldaas run orders:latest -- ./migrate.sh                a database around one command
  aldaas clone orders:latest pr-123                       one that stays until `aldaas rm`
  aldaas doctor                                           what is here, left over, missing";

#[derive(Debug, clap::Args)]
pub struct Global {
    /// How to print results: table, for people, or json, for programs
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table, hide_possible_values = true)]
    pub output: Output,
    /// Say more on standard error (twice: everything)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Ceph's configuration file
    #[arg(
        long,
        global = true,
        env = "ALDAAS_CEPH_CONF",
        hide_env_values = true,
        default_value = "/etc/ceph/ceph.conf",
        help_heading = "Where"
    )]
    pub ceph_conf: PathBuf,
    /// Ceph user, without `client.`
    #[arg(
        long,
        global = true,
        env = "ALDAAS_CEPH_USER",
        hide_env_values = true,
        default_value = "admin",
        help_heading = "Where"
    )]
    pub ceph_user: String,
    /// Seconds after which a Ceph that does not answer counts as away
    #[arg(
        long,
        global = true,
        env = "ALDAAS_CEPH_TIMEOUT",
        hide_env_values = true,
        default_value_t = 30,
        value_name = "SECONDS",
        help_heading = "Where"
    )]
    pub ceph_timeout: u64,
    /// Pool that holds golden images and clones
    #[arg(
        long,
        global = true,
        env = "ALDAAS_POOL",
        hide_env_values = true,
        default_value = "aldaas",
        help_heading = "Where"
    )]
    pub pool: String,
    /// Directory for mounts and sockets on this machine
    #[arg(
        long,
        global = true,
        env = "ALDAAS_RUN_DIR",
        hide_env_values = true,
        default_value = "/run/aldaas",
        help_heading = "Where"
    )]
    pub run_dir: PathBuf,
    /// How images become block devices: auto, krbd (the kernel's own) or fuse (where the kernel has none)
    #[arg(
        long,
        global = true,
        env = "ALDAAS_ATTACH",
        hide_env_values = true,
        default_value = "auto",
        help_heading = "Where"
    )]
    pub attach: AttachMode,
    /// User as whom the engine runs
    #[arg(
        long,
        global = true,
        env = "ALDAAS_ENGINE_USER",
        hide_env_values = true,
        default_value = "postgres",
        help_heading = "Where"
    )]
    pub engine_user: String,
    /// The program `aldaas-restore` [default: beside this one, else in PATH]
    #[arg(
        long,
        global = true,
        env = "ALDAAS_RESTORE_PROGRAM",
        hide_env_values = true,
        help_heading = "Where"
    )]
    pub restore_program: Option<PathBuf>,
    /// The program `aldaas-fuse` [default: beside this one, else in PATH]
    #[arg(long, global = true, env = "ALDAAS_FUSE_PROGRAM", hide_env_values = true, help_heading = "Where")]
    pub fuse_program: Option<PathBuf>,
}

impl Global {
    /// What we start runs elsewhere: a path must mean the same to it.
    pub fn make_paths_absolute(&mut self) -> std::io::Result<()> {
        for path in [&mut self.ceph_conf, &mut self.run_dir] {
            *path = std::path::absolute(&path)?;
        }
        for path in [&mut self.restore_program, &mut self.fuse_program].into_iter().flatten() {
            // A bare name is looked for in PATH.
            if path.components().count() > 1 {
                *path = std::path::absolute(&path)?;
            }
        }
        Ok(())
    }
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build a golden image from a dump
    Ingest(Ingest),
    /// List golden images
    Images(Images),
    /// Start a database on a fresh clone, and remove both at the end
    Run(Run),
    /// Start a database on a fresh clone that stays until `aldaas rm`
    Clone(MakeClone),
    /// List clones
    Clones(Clones),
    /// Remove clones, stopping their databases
    Rm(Remove),
    /// Take a golden image away; clones of it live on
    Retire(Retire),
    /// Say what is here, what is left over and what this machine lacks
    Doctor(Doctor),
    /// Print a completion script for a shell
    #[command(after_help = "Example: source <(aldaas completions bash)")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Build a golden image from a dump.
///
/// The dump is found out by its content: plain SQL or pg_dump's custom format, alone or gzipped. The image becomes `latest` only when
/// all of it was restored without an error and a clone of it was started and checked.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
S3 is configured as usual: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, and AWS_ENDPOINT_URL for
a store that is not AWS.

Examples:
  aldaas ingest orders --from s3://backup/orders.sql.gz
  aldaas ingest orders --from ./orders.dump --size 200GiB --check 'SELECT count(*) > 0 FROM customer'
  pg_dump prod | aldaas ingest orders --from -")]
pub struct Ingest {
    /// Database the dump is of: letters, digits and '-'; also its name in the engine
    pub database: DatabaseName,
    /// The dump: s3://BUCKET/KEY, a file, or - for standard input
    #[arg(long, value_name = "DUMP")]
    pub from: String,
    /// Size of the volume; thin, so that only what is written takes space
    #[arg(long, env = "ALDAAS_SIZE", hide_env_values = true, default_value = "16GiB")]
    pub size: ByteSize,
    /// File system of the volume: ext4 or xfs
    #[arg(long, env = "ALDAAS_FILESYSTEM", hide_env_values = true, default_value = "ext4")]
    pub filesystem: Filesystem,
    /// Query that must return true (or any row without a null) on a clone before the image is ready; may be repeated
    #[arg(long, value_name = "SQL")]
    pub check: Vec<String>,
    /// Name of the golden image [default: DATABASE-TIMESTAMP of now]
    #[arg(long)]
    pub name: Option<GoldenImageName>,
    /// Parallel jobs of pg_restore
    #[arg(long, env = "ALDAAS_JOBS", hide_env_values = true)]
    pub jobs: Option<u32>,
    /// Take a dump that makes no tables
    #[arg(long)]
    pub allow_empty: bool,
    /// Keep an image that failed, with its reason, instead of removing it
    #[arg(long)]
    pub keep_failed: bool,
}

/// List golden images.
#[derive(Debug, clap::Args)]
pub struct Images {
    /// Only those of this database
    pub database: Option<DatabaseName>,
}

/// Start a database on a fresh clone, and remove both at the end.
///
/// Without a command it prints the URL and waits for Ctrl-C. With one, it runs it with DATABASE_URL, PGHOST, PGPORT, PGUSER and
/// PGDATABASE set, and ends with its exit code.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  aldaas run orders:latest
  aldaas run orders:latest -- psql -c 'SELECT count(*) FROM customer'
  aldaas run orders:orders-20261123t033000z -- ./migrate.sh")]
pub struct Run {
    /// Golden image: DATABASE:latest or DATABASE:IMAGE
    #[arg(value_name = "IMAGE")]
    pub image: ImageRef,
    #[command(flatten)]
    pub engine: Engine,
    /// Command to run with the database
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<std::ffi::OsString>,
}

/// Start a database on a fresh clone that stays until `aldaas rm`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  aldaas clone orders:latest pr-123
  aldaas clone orders:latest pr-123 -o json | jq -r .url")]
pub struct MakeClone {
    /// Golden image: DATABASE:latest or DATABASE:IMAGE
    #[arg(value_name = "IMAGE")]
    pub image: ImageRef,
    /// Name of the clone [default: one is made up]
    pub name: Option<CloneName>,
    #[command(flatten)]
    pub engine: Engine,
}

/// How a clone's database is started.
#[derive(Debug, clap::Args)]
pub struct Engine {
    /// Port to listen on [default: any free one]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub port: u16,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub listen: std::net::IpAddr,
    /// Size of the clone's RADOS objects: small ones make small writes cheap and big scans dear [default: 256KiB, more where the image is over 64 GiB]
    #[arg(long, env = "ALDAAS_OBJECT_SIZE", hide_env_values = true)]
    pub object_size: Option<ByteSize>,
}

/// List clones.
#[derive(Debug, clap::Args)]
pub struct Clones {
    /// Also say how much each has written (opens every one of them)
    #[arg(short, long)]
    pub long: bool,
}

/// Remove clones, stopping their databases.
#[derive(Debug, clap::Args)]
pub struct Remove {
    /// Names of the clones
    #[arg(required = true)]
    pub names: Vec<CloneName>,
}

/// Take a golden image away; clones of it live on, and its space is freed with the last of them.
#[derive(Debug, clap::Args)]
pub struct Retire {
    /// Name of the golden image
    pub image: GoldenImageName,
    /// Even the newest ready one
    #[arg(long)]
    pub force: bool,
}

/// Say what is here, what is left over and what this machine lacks.
///
/// Ends with code 1 if something is missing or left over.
#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// Remove what ended processes left behind
    #[arg(long)]
    pub clean: bool,
}
