//! `aldaas-fuse`: serves RBD images as files where the kernel has no rbd.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use aldaas_rbd::ConnectOptions;
use aldaas_volume::server::{self, ServeOptions};
use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Serve RBD images as files below `images/` in the run directory, from one Ceph connection.
///
/// Loop devices on these files carry the file systems of volumes on machines whose kernel has no rbd. Normally
/// started by the program that opens the first volume, and ended with the last.
#[derive(Debug, Parser)]
#[command(name = "aldaas-fuse", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until told to stop; SIGTERM ends it as soon as nothing is attached.
    Serve(Serve),
    /// Tell the server to stop; refused while images are attached.
    Stop {
        #[command(flatten)]
        run_dir: RunDir,
        /// Stop although images are attached: they are flushed, but file systems mounted on them fail.
        #[arg(long)]
        force: bool,
    },
    /// Have the cluster cut off a server of this run directory that was killed, so that its locks hold nobody up.
    Forget(Serve),
    /// List the attached images.
    List {
        #[command(flatten)]
        run_dir: RunDir,
    },
}

#[derive(Debug, Args)]
struct RunDir {
    /// Directory for the socket, the mount and the volumes.
    #[arg(long, env = "ALDAAS_RUN_DIR", default_value = "/run/aldaas")]
    run_dir: PathBuf,
}

#[derive(Debug, Args)]
struct Serve {
    #[command(flatten)]
    run_dir: RunDir,
    /// Ceph configuration file [default: librados' own search].
    #[arg(long, env = "ALDAAS_CEPH_CONF")]
    ceph_conf: Option<PathBuf>,
    /// Ceph user, without `client.`.
    #[arg(long, env = "ALDAAS_CEPH_USER", default_value = "admin")]
    user: String,
    /// Keyring that holds the user's key [default: as configured].
    #[arg(long, env = "ALDAAS_CEPH_KEYRING")]
    keyring: Option<PathBuf>,
    /// Another Ceph option, key=value; may be repeated.
    #[arg(long, value_parser = key_value)]
    ceph_option: Vec<(String, String)>,
    /// Seconds until a cluster that doesn't answer is an error.
    #[arg(long, default_value_t = 10)]
    connect_timeout: u64,
    /// Seconds until an operation that isn't answered is an I/O error.
    #[arg(long, default_value_t = 30)]
    operation_timeout: u64,
    /// Started for an image: may be told to end when the last one is detached.
    #[arg(long, alias = "idle-exit")]
    on_demand: bool,
    /// Stay in the caller's session.
    #[arg(long)]
    foreground: bool,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl From<Serve> for ServeOptions {
    fn from(args: Serve) -> Self {
        let ceph = ConnectOptions {
            conf: args.ceph_conf,
            user: args.user,
            keyring: args.keyring,
            connect_timeout: Duration::from_secs(args.connect_timeout),
            operation_timeout: Duration::from_secs(args.operation_timeout),
            overrides: args.ceph_option,
        };
        Self { run_dir: args.run_dir.run_dir, ceph, on_demand: args.on_demand, foreground: args.foreground }
    }
}

fn main() -> ! {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("ALDAAS_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(ansi).with_env_filter(filter).init();
    let ended = run(cli.command).inspect_err(|e| eprintln!("aldaas-fuse: {e:#}"));
    aldaas_rbd::exit_at_once(u8::from(ended.is_err()))
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(args) => server::serve(&args.into()),
        Command::Forget(args) => server::forget(&args.into()),
        Command::Stop { run_dir, force } => {
            let stopped = server::stop(&run_dir.run_dir, force)?;
            println!("{}", if stopped { "stopped" } else { "no server runs" });
            Ok(())
        }
        Command::List { run_dir } => {
            let Some(images) = server::list(&run_dir.run_dir)? else {
                println!("no server runs");
                return Ok(());
            };
            for image in images {
                let mode = if image.read_only { "ro" } else { "rw" };
                println!("{} {mode} {} bytes, open {} times", image.spec, image.size, image.open_files);
            }
            Ok(())
        }
    }
}
