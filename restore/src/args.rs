//! The command line. Every flag doubles as an environment variable, read here and nowhere else.

use std::path::PathBuf;
use std::str::FromStr;

use aldaas_api::Ttl;
use clap::{ArgAction, Parser, Subcommand};
use rustix::process::Pid;

use crate::engine::{Kind, Stop};
use crate::source::{Location, Prefix, S3Options};

/// Variables that begin so are the engine's, without the prefix: `ALDAAS_ENGINE_ENV_TZ=UTC`.
pub const ENGINE_VARIABLES: &str = "ALDAAS_ENGINE_ENV_";
/// … those of the restore command, or of the programs that restore without one, …
pub const RESTORE_VARIABLES: &str = "ALDAAS_RESTORE_ENV_";
/// … of the mask command, …
pub const MASK_VARIABLES: &str = "ALDAAS_MASK_ENV_";
/// … and of the check command.
pub const CHECK_VARIABLES: &str = "ALDAAS_CHECK_ENV_";

/// Turns a database dump into a data directory that an engine starts on in a moment.
#[derive(Debug, Parser)]
#[command(name = "aldaas-restore", version, max_term_width = 110, after_long_help = EXAMPLES)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  What is in that dump?
    aldaas-restore inspect --from s3://backup/orders.sql.gz

  Restore it (as an unprivileged user: the engine refuses to run as root):
    aldaas-restore restore --from s3://backup/orders.sql.gz --database orders \\
        --data-dir /srv/orders/data --work-dir /tmp/orders --manifest /srv/orders/manifest.json

  Use it, until Ctrl-C:
    aldaas-restore serve --database orders --data-dir /srv/orders/data --work-dir /tmp/orders

Keys for S3 come from where the AWS tools have theirs: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, a web
identity token, the machine's role.

Neither the engine nor a command sees the environment of this program, least of all the keys. Variables for them are given
as ALDAAS_ENGINE_ENV_NAME, ALDAAS_RESTORE_ENV_NAME, ALDAAS_MASK_ENV_NAME and ALDAAS_CHECK_ENV_NAME, and are theirs as NAME:
    ALDAAS_MASK_ENV_SALT=… aldaas-restore restore … --mask-command /opt/mask.sh     # mask.sh sees SALT

Events are written to standard output, one JSON object per line; logs to standard error (RUST_LOG says how much).
Exit code: 0 done; 1 it can only fail again (a bad dump, a failing check); 2 bad arguments; 75 it may work later (S3 away,
engine killed); 130 and 143 told to stop by SIGINT or SIGTERM.

A dump is code: whoever can write it can run anything as the user that runs this program.";

/// What the program does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Restore a dump into an empty data directory, bake it, check it, and stop cleanly
    Restore(Restore),
    /// Start the engine on a clone and see that it holds what the manifest says
    Check(Check),
    /// Start the engine on a clone and keep it running until told to stop
    ///
    /// Who may connect: the Unix socket in the work directory takes only the user that runs this program (and root).
    /// Over TCP, every user and every program on this machine is the superuser of the clone, without a password, through
    /// 127.0.0.1 and ::1: on a machine shared with people who may not read the data, do not serve it. From elsewhere
    /// (--listen) a password is needed, and there is none until one is set.
    Serve(Serve),
    /// Tell what a dump is, without restoring it
    Inspect(Inspect),
    /// Tell which dumps there are in a bucket, the newest first, as one JSON object
    ///
    /// {"objects":[{"key":…,"size":…,"etag":…,"lastModified":…}],"total":N}: total counts all that match, the list holds
    /// the newest of them. Keys that end with / are no dumps and left out.
    List(List),
    /// Put a copy of this program somewhere else
    ///
    /// It is static: from a volume that an engine's container shares, it runs there whatever else that image holds. The copy
    /// is at its place whole or not at all. The certificate authorities that this machine trusts go beside it, as
    /// ca-certificates.crt: it trusts them there too, for an engine's image often has none.
    Install(Install),
}

/// Which dump.
#[derive(Debug, clap::Args)]
pub struct From {
    /// The dump: s3://bucket/key, a path, or - for standard input
    ///
    /// Plain SQL (pg_dumpall too), pg_dump -Fc or -Ft, with or without gzip, zstd, xz, lz4 or bzip2 around it; found by content, the name does
    /// not matter.
    #[arg(long, env = "ALDAAS_FROM", value_name = "LOCATION")]
    pub from: Location,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub s3: S3,
}

/// How to reach S3.
#[derive(Debug, clap::Args)]
pub struct S3 {
    /// An S3 store that is not AWS, e.g. http://127.0.0.1:7480
    #[arg(long, env = "AWS_ENDPOINT_URL", value_name = "URL")]
    pub s3_endpoint: Option<String>,

    /// The region to sign requests for [default: the profile's, else us-east-1]
    #[arg(long, env = "AWS_REGION", value_name = "REGION")]
    pub s3_region: Option<String>,

    /// Take any TLS certificate from the store, for one with a certificate that nobody signed
    #[arg(long, env = "ALDAAS_S3_INSECURE", action = ArgAction::SetTrue)]
    pub s3_insecure: bool,
}

impl S3 {
    /// As the adapter wants it.
    #[must_use]
    pub fn options(&self) -> S3Options {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        S3Options {
            endpoint: given(&self.s3_endpoint),
            region: given(&self.s3_region),
            insecure: self.s3_insecure,
        }
    }
}

/// Which engine, and where.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// The data directory, owned by the user that runs this program
    #[arg(long, env = "ALDAAS_DATA_DIR", value_name = "DIR")]
    pub data_dir: PathBuf,

    /// The database's name inside the engine
    #[arg(long, env = "ALDAAS_DATABASE", value_name = "NAME")]
    pub database: String,

    /// A directory for sockets and logs, with a short path; made if need be, closed to other users
    #[arg(long, env = "ALDAAS_WORK_DIR", value_name = "DIR")]
    pub work_dir: PathBuf,

    /// The database engine
    #[arg(long, env = "ALDAAS_ENGINE", value_enum, default_value_t = Kind::Postgres)]
    pub engine: Kind,

    /// Where the engine's programs are [default: PATH, then the newest in /usr/lib/postgresql]
    #[arg(long, env = "ALDAAS_BIN_DIR", value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,

    /// Stop when the program that started this one ends; with its process id also when it ended before that
    #[arg(long, env = "ALDAAS_WITH_PARENT", value_name = "PID", num_args = 0..=1, require_equals = true, default_missing_value = "any")]
    pub with_parent: Option<Parent>,
}

/// The program that started this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// Whatever it is.
    Any,
    /// This process and no other.
    Process(Pid),
}

impl FromStr for Parent {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Parent, Self::Err> {
        if text == "any" {
            return Ok(Parent::Any);
        }
        let pid = text.parse().ok().filter(|pid: &i32| *pid > 0).and_then(Pid::from_raw);
        pid.map(Parent::Process).ok_or("write the parent's process id, or any")
    }
}

/// `restore`
#[derive(Debug, clap::Args)]
pub struct Restore {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub from: From,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: Place,

    /// Where to write the manifest: what was restored, and the evidence for it
    #[arg(long, env = "ALDAAS_MANIFEST", value_name = "FILE")]
    pub manifest: PathBuf,

    /// How many tables and indexes to work on at once
    ///
    /// More than one needs room for the whole uncompressed archive in the work directory when the dump is pg_dump -Fc.
    #[arg(long, env = "ALDAAS_JOBS", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=32))]
    pub jobs: u32,

    /// Take a dump that makes no tables for a good one
    #[arg(long, env = "ALDAAS_ALLOW_EMPTY", action = ArgAction::SetTrue)]
    pub allow_empty: bool,

    /// What to call the dump in the manifest [default: as in --from]
    #[arg(long, env = "ALDAAS_SOURCE_NAME", value_name = "NAME")]
    pub source_name: Option<String>,

    /// The locale of the new database: it decides how text is sorted
    #[arg(long, env = "ALDAAS_LOCALE", value_name = "LOCALE", default_value = "C.UTF-8")]
    pub locale: String,

    /// Restore with this command instead; program and arguments are words of their own, each behind a flag of its own
    ///
    /// It gets the dump as it is stored, compressed or not, on standard input, and in its environment how to connect to the
    /// engine and its empty database: PGHOST, PGPORT, PGUSER, PGDATABASE. What it says goes to the log. It fails the restore
    /// unless it exits with 0; 75 says that it may work later. For example:
    /// --command sh --command -c --command 'zstd -dc | psql -v ON_ERROR_STOP=1'
    #[arg(long, env = "ALDAAS_RESTORE_COMMAND", value_name = "WORD", allow_hyphen_values = true)]
    pub command: Vec<String>,

    /// SQL that makes data unrecognisable, run after the restore; may be given several times
    ///
    /// Each in a transaction of its own, as the engine's superuser. When all is masked, the tables that changed are written
    /// anew (that takes room for the largest of them) and the log is cut, so that nothing of what was replaced is left in
    /// the files.
    #[arg(long, env = "ALDAAS_MASK_SQL", value_name = "SQL", allow_hyphen_values = true)]
    pub mask_sql: Vec<String>,

    /// A command that makes data unrecognisable, run after the SQL; program and arguments as for --command
    #[arg(long, env = "ALDAAS_MASK_COMMAND", value_name = "WORD", allow_hyphen_values = true)]
    pub mask_command: Vec<String>,

    /// Another argument for the engine, e.g. --engine-arg -c --engine-arg shared_buffers=2GB
    #[arg(long = "engine-arg", env = "ALDAAS_ENGINE_ARG", value_name = "WORD", allow_hyphen_values = true)]
    pub engine_args: Vec<String>,

    /// A restore that takes longer has failed for good: 90m, 12h, 2d
    #[arg(long, env = "ALDAAS_TIMEOUT", value_name = "TIME", default_value = "1d")]
    pub timeout: Ttl,
}

/// `check`
#[derive(Debug, clap::Args)]
pub struct Check {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: Place,

    /// The manifest that `restore` wrote
    #[arg(long, env = "ALDAAS_MANIFEST", value_name = "FILE")]
    pub manifest: PathBuf,

    /// A statement that must succeed and return a row, with no false and no NULL in it; may be given several times
    ///
    /// For example: SELECT count(*) > 0 FROM orders. One that may return nothing is written SELECT EXISTS (…).
    #[arg(long, env = "ALDAAS_CHECK_SQL", value_name = "STATEMENT", allow_hyphen_values = true)]
    pub sql: Vec<String>,

    /// A command that must exit with 0, run after the statements; each word behind a flag of its own
    ///
    /// In its environment stands how to connect: PGHOST, PGPORT, PGUSER, PGDATABASE. What it says goes to the log.
    #[arg(long, env = "ALDAAS_CHECK_COMMAND", value_name = "WORD", allow_hyphen_values = true)]
    pub command: Vec<String>,

    /// Another argument for the engine, e.g. --engine-arg -c --engine-arg shared_buffers=2GB
    #[arg(long = "engine-arg", env = "ALDAAS_ENGINE_ARG", value_name = "WORD", allow_hyphen_values = true)]
    pub engine_args: Vec<String>,

    /// A check that takes longer has failed for good: 90m, 12h, 2d
    #[arg(long, env = "ALDAAS_TIMEOUT", value_name = "TIME", default_value = "1h")]
    pub timeout: Ttl,
}

/// `serve`
#[derive(Debug, clap::Args)]
pub struct Serve {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: Place,

    /// The address to listen on; every user of this machine may connect without a password, others with one
    #[arg(long, env = "ALDAAS_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub listen: String,

    /// The TCP port; 0 chooses a free one
    #[arg(long, env = "ALDAAS_PORT", value_name = "PORT", default_value_t = 0)]
    pub port: u16,

    /// Do not wait for the disk: starts and commits faster, for data that is thrown away anyway
    ///
    /// A crash of the engine loses nothing; a crash of the machine loses the clone.
    #[arg(long, env = "ALDAAS_NO_FSYNC", action = ArgAction::SetTrue)]
    pub no_fsync: bool,

    /// Start the engine when a line arrives on standard input; end without having started it when that closes before
    ///
    /// Whoever starts this program can note its process id in between, so that no engine runs that nobody knows of.
    #[arg(long, env = "ALDAAS_START_ON_STDIN", action = ArgAction::SetTrue)]
    pub start_on_stdin: bool,

    /// How to stop: fast writes everything out first, immediate is for data that nobody needs any more
    #[arg(long, env = "ALDAAS_STOP", value_enum, default_value_t = Stop::Fast)]
    pub stop: Stop,
}

/// `inspect`
#[derive(Debug, clap::Args)]
pub struct Inspect {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub from: From,
}

/// `list`
#[derive(Debug, clap::Args)]
pub struct List {
    /// Where to look: s3://bucket/prefix, or s3://bucket for all of it
    #[arg(long, env = "ALDAAS_FROM", value_name = "PREFIX")]
    pub from: Prefix,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub s3: S3,

    /// What keys end with, e.g. .sql.gz
    #[arg(long, env = "ALDAAS_SUFFIX", value_name = "SUFFIX", default_value = "")]
    pub suffix: String,

    /// How many to tell of
    #[arg(long, env = "ALDAAS_NEWEST", value_name = "N", default_value_t = 20)]
    pub newest: usize,
}

/// `install`
#[derive(Debug, clap::Args)]
pub struct Install {
    /// Where to put it, with its name: /aldaas/aldaas-restore
    #[arg(env = "ALDAAS_INSTALL_PATH", value_name = "PATH")]
    pub path: PathBuf,
    /// PATH is DIR/VERSION/NAME on a node, for the containers of many pods: DIR/VERSION is made, SELinux lets containers run what
    /// is there, and of other versions in DIR only the two newest stay
    #[arg(long, env = "ALDAAS_INSTALL_ON_NODE")]
    pub on_node: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_flag_doubles_as_an_environment_variable() {
        for command in Args::command().get_subcommands() {
            for flag in
                command.get_arguments().filter(|flag| flag.get_id() != "help" && flag.get_id() != "version")
            {
                assert!(flag.get_env().is_some(), "{} --{}", command.get_name(), flag.get_id());
            }
        }
    }
}
