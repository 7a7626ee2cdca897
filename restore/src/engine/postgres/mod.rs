//! PostgreSQL.

mod binaries;
mod cluster;
mod complaint;
mod load;
mod log;
mod mask;
mod query;
mod server;
mod settings;
mod user;

use std::ffi::OsString;
use std::path::Path;

use aldaas_api::manifest::Contents;
use rustix::process::Signal;
use tokio_util::sync::CancellationToken;

use super::{Engine, Error, LoadError, Mode, Place, Server, Stop};
use crate::child;
use crate::command::{UserCommand, Words};
use crate::evidence::Pipe;
use crate::format::{Content, Dump};
use binaries::Binaries;
use load::Load;
pub use server::Postmaster;

/// The database that is there from the beginning.
const FIRST: &str = "postgres";

/// PostgreSQL, from one installation, over one data directory.
#[derive(Clone, Debug)]
pub struct Postgres {
    binaries: Binaries,
    place: Place,
    locale: String,
}

impl Postgres {
    /// Finds the programs and looks whether this user may run them.
    ///
    /// # Errors
    /// When they aren't there, when we are root, or when a name cannot be a database's.
    pub fn new(bin_dir: Option<&Path>, place: Place, locale: String) -> Result<Postgres, Error> {
        if rustix::process::geteuid().is_root() {
            let advice = "run this as the user that shall own the data, for example: setpriv --reuid postgres --regid postgres --clear-groups aldaas-restore …";
            return Err(Error::Refused(format!("PostgreSQL refuses to run as root: {advice}")));
        }
        if matches!(place.database.as_str(), "template0" | "template1") || place.database.len() > 63 {
            return Err(Error::Refused(format!(
                "{:?} cannot be a database of PostgreSQL: choose another name",
                place.database
            )));
        }
        Ok(Postgres { binaries: Binaries::find(bin_dir)?, place, locale })
    }

    /// After a dump that made databases of its own (`pg_dump --create`), or went to others: sees to it that all of it
    /// is in the database of our name.
    async fn adopt(&self, server: &mut Postmaster, cancel: &CancellationToken) -> Result<(), LoadError> {
        const MADE: &str =
            "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres' ORDER BY 1";
        let database = self.place.database.as_str();
        if database != FIRST && query::has_tables(server, FIRST, cancel).await? {
            let what = format!("the dump makes tables in the database {FIRST:?}, not all in one of its own");
            return Err(Error::Statement(format!("{what}: dump one database alone")).into());
        }
        let made = query::column(server, FIRST, MADE, cancel).await?;
        let others: Vec<&str> = made.iter().map(String::as_str).filter(|name| *name != database).collect();
        let there = others.len() < made.len() || database == FIRST;
        if there && (others.is_empty() || query::has_tables(server, database, cancel).await?) {
            if !others.is_empty() {
                tracing::warn!("the dump also makes {}: kept, but not counted", others.join(", "));
            }
            return Ok(());
        }
        let [one] = others.as_slice() else {
            let what = format!(
                "the dump makes the databases {}, but none called {database:?} with tables",
                others.join(", ")
            );
            return Err(Error::Statement(format!("{what}: dump one database alone")).into());
        };
        if database == FIRST {
            let what = format!("the dump makes the database {one:?}, which cannot be called {FIRST:?}");
            return Err(Error::Statement(format!("{what}: choose another name for it")).into());
        }
        tracing::info!("the dump made the database {one:?}: renamed to {database:?}");
        let ours = query::quote(database);
        if there {
            query::run(server, FIRST, &format!("DROP DATABASE {ours}"), cancel).await?;
        }
        let rename = format!("ALTER DATABASE {} RENAME TO {ours}", query::quote(one));
        Ok(query::run(server, FIRST, &rename, cancel).await?)
    }

    /// Runs a command of the user's, unless the server dies meanwhile.
    async fn beside(
        &self,
        server: &mut Postmaster,
        command: &UserCommand<'_>,
        input: Option<Pipe>,
        cancel: &CancellationToken,
    ) -> Result<(), crate::Error> {
        const WORDS: Words = Words { reason: complaint::of, without_data: complaint::without_data };
        let connection = self.connection(server);
        server.guard(cancel, command.run(&connection, input, WORDS, cancel)).await
    }

    /// How a command connects, and where it finds the engine's programs.
    fn connection(&self, server: &Postmaster) -> Vec<(&'static str, OsString)> {
        let ours = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        let mut path = self.binaries.dir().as_os_str().to_owned();
        path.push(":");
        path.push(ours);
        let work = self.place.work.as_os_str().to_owned();
        vec![
            ("PATH", path),
            // Where it may write, whatever else is read-only.
            ("HOME", work.clone()),
            ("TMPDIR", work.clone()),
            ("PGHOST", work),
            ("PGPORT", server.port().to_string().into()),
            ("PGUSER", "postgres".into()),
            ("PGDATABASE", self.place.database.clone().into()),
        ]
    }
}

impl Engine for Postgres {
    type Server = Postmaster;

    fn name(&self) -> &'static str {
        "postgres"
    }

    fn version(&self) -> Result<String, Error> {
        self.binaries.version()
    }

    async fn init(&self, cancel: &CancellationToken) -> Result<(), Error> {
        cluster::init(&self.binaries, &self.place, &self.locale, cancel).await
    }

    async fn start(&self, mode: &Mode, cancel: &CancellationToken) -> Result<Postmaster, Error> {
        server::start(&self.binaries, &self.place, mode, cancel).await
    }

    async fn load(
        &self,
        server: &mut Postmaster,
        dump: Dump,
        jobs: u32,
        cancel: &CancellationToken,
    ) -> Result<(), LoadError> {
        let load = Load { binaries: &self.binaries, place: &self.place, port: server.port(), jobs, cancel };
        let database = &self.place.database;
        let makes_own = load::makes_database(&dump);
        if !makes_own && database != FIRST {
            query::run(server, FIRST, &format!("CREATE DATABASE {}", query::quote(database)), cancel).await?;
        }
        if dump.content != Content::PlainSql {
            return load.pg_restore(server, dump, database).await;
        }
        let begin = if makes_own { FIRST } else { database };
        if load.psql(server, dump, begin).await? {
            self.adopt(server, cancel).await?;
        }
        Ok(())
    }

    async fn load_by(
        &self,
        server: &mut Postmaster,
        command: &UserCommand<'_>,
        dump: Pipe,
        cancel: &CancellationToken,
    ) -> Result<(), crate::Error> {
        let database = &self.place.database;
        if database != FIRST {
            query::run(server, FIRST, &format!("CREATE DATABASE {}", query::quote(database)), cancel).await?;
        }
        self.beside(server, command, Some(dump), cancel).await?;
        Ok(self.adopt(server, cancel).await?)
    }

    async fn mask(
        &self,
        server: &mut Postmaster,
        sql: &str,
        cancel: &CancellationToken,
    ) -> Result<u64, Error> {
        mask::run(server, &self.place.database, sql, cancel).await
    }

    async fn forget(&self, server: &mut Postmaster, cancel: &CancellationToken) -> Result<(), Error> {
        mask::forget(server, &self.place.database, cancel).await
    }

    async fn run(
        &self,
        server: &mut Postmaster,
        command: &UserCommand<'_>,
        cancel: &CancellationToken,
    ) -> Result<(), crate::Error> {
        self.beside(server, command, None, cancel).await
    }

    async fn bake(
        &self,
        server: &mut Postmaster,
        jobs: u32,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        // First the statistics (also of partitioned tables, which vacuumdb leaves out), then the freezing, theirs included.
        query::run(server, &self.place.database, "ANALYZE", cancel).await?;
        let mut command = child::command(&self.binaries.program("vacuumdb"), Signal::KILL);
        command.args(["--all", "--freeze", "--quiet", "--username=postgres", "--no-password"]);
        // Its workers share memory in /dev/shm, of which a container has little; and there are no dead rows to look for.
        command.arg("--parallel=0");
        command
            .arg("--host")
            .arg(server.socket_dir())
            .arg(format!("--port={}", server.port()))
            .arg(format!("--jobs={jobs}"));
        let done = server.guard(cancel, cluster::run("vacuumdb", command, cancel)).await;
        match done.map_err(|err| complaint::explain(err, &self.place.data)) {
            Err(err @ Error::Program { .. }) => Err(server.autopsy(err).await),
            other => other.map(|_| ()),
        }
    }

    async fn contents(&self, server: &mut Postmaster, cancel: &CancellationToken) -> Result<Contents, Error> {
        query::contents(server, &self.place.database, cancel).await
    }

    async fn check(
        &self,
        server: &mut Postmaster,
        sql: &str,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        query::check(server, &self.place.database, sql, cancel).await
    }

    async fn stop(&self, server: Postmaster, how: Stop, cancel: &CancellationToken) -> Result<(), Error> {
        server.end(how, cancel).await
    }

    async fn prove(&self, cancel: &CancellationToken) -> Result<(), Error> {
        cluster::prove(&self.binaries, &self.place.data, cancel).await
    }
}
