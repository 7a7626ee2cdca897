//! What we ask the server ourselves, over its socket.

use aldaas_api::manifest::Contents;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSql, Kind, Type};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use tokio_util::sync::CancellationToken;

use super::super::Error;
use super::complaint;
use super::server::Postmaster;

/// Every table that is the user's own; partitions hold the rows of their partitioned table.
const TABLES: &str = "\
SELECT format('%I.%I', n.nspname, c.relname)
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
   AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
 ORDER BY 1";

/// Does `work` with a connection to `database`.
pub(super) async fn with<T>(
    server: &mut Postmaster,
    database: &str,
    cancel: &CancellationToken,
    work: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
) -> Result<T, Error> {
    let config = server.config(database);
    let done = server
        .guard(cancel, async {
            let asked = async {
                let (client, connection) = config.connect(NoTls).await?;
                let connection = tokio::spawn(connection);
                let done = work(&client).await;
                drop(client);
                let _ = connection.await; // says goodbye, so that a stop need not cut it off
                done
            };
            Ok::<_, Error>(asked.await)
        })
        .await?;
    match done {
        Ok(done) => Ok(done),
        Err(err) => Err(explain(server, &err).await),
    }
}

async fn explain(server: &mut Postmaster, err: &tokio_postgres::Error) -> Error {
    let said = match err.as_db_error() {
        Some(db) => complaint::without_data(&format!("{}: {}", db.severity(), db.message())),
        None => {
            std::error::Error::source(err).map_or_else(|| err.to_string(), |cause| format!("{err}: {cause}"))
        }
    };
    let fault = complaint::explain(
        Error::Program { program: "the engine", said: complaint::shorten(&said) },
        server.data(),
    );
    let hung_up = err.is_closed() || err.as_db_error().is_none() || is_going_down(err.code());
    if hung_up { server.autopsy(fault).await } else { fault }
}

fn is_going_down(code: Option<&SqlState>) -> bool {
    matches!(code, Some(code) if [&SqlState::ADMIN_SHUTDOWN, &SqlState::CRASH_SHUTDOWN, &SqlState::CANNOT_CONNECT_NOW].contains(&code))
}

/// Runs statements that return nothing.
pub(super) async fn run(
    server: &mut Postmaster,
    database: &str,
    sql: &str,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    with(server, database, cancel, async |client| client.batch_execute(sql).await).await
}

/// The first column of all rows, as text.
pub(super) async fn column(
    server: &mut Postmaster,
    database: &str,
    sql: &str,
    cancel: &CancellationToken,
) -> Result<Vec<String>, Error> {
    with(server, database, cancel, async |client| {
        let messages = client.simple_query(sql).await?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        Ok(rows.collect())
    })
    .await
}

/// Whether a table of the user's is there.
pub(super) async fn has_tables(
    server: &mut Postmaster,
    database: &str,
    cancel: &CancellationToken,
) -> Result<bool, Error> {
    Ok(!column(server, database, TABLES, cancel).await?.is_empty())
}

/// Counts tables, rows and bytes. Rows are counted one by one (`count(*)`, which after the bake can use an index and
/// writes nothing): an estimate would be no evidence.
pub(super) async fn contents(
    server: &mut Postmaster,
    database: &str,
    cancel: &CancellationToken,
) -> Result<Contents, Error> {
    with(server, database, cancel, async |client| {
        let number = |row: &tokio_postgres::Row| u64::try_from(row.get::<_, i64>(0)).unwrap_or_default();
        let bytes =
            number(&client.query_one("SELECT pg_catalog.pg_database_size(current_database())", &[]).await?);
        let tables = client.query(TABLES, &[]).await?;
        let mut contents = Contents { tables: tables.len() as u64, rows: 0, bytes };
        for table in &tables {
            let count = format!("SELECT pg_catalog.count(*) FROM ONLY {}", table.get::<_, &str>(0));
            contents.rows += number(&client.query_one(&count, &[]).await?);
        }
        Ok(contents)
    })
    .await
}

/// Runs a check of the user's.
pub(super) async fn check(
    server: &mut Postmaster,
    database: &str,
    sql: &str,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    let failed = |said: String| Error::Check { sql: sql.to_owned(), said };
    let verdict = with(server, database, cancel, async |client| {
        let rows = client.query(sql, &[]).await?;
        let values: Vec<Verdict> =
            rows.iter().flat_map(|row| (0..row.len()).map(|column| row.get(column))).collect();
        Ok(values.iter().copied().find(|value| *value != Verdict::Holds).or(values.first().copied()))
    });
    match verdict.await {
        Ok(Some(Verdict::Holds)) => Ok(()),
        Ok(Some(Verdict::False)) => Err(failed("it returned false".into())),
        Ok(Some(Verdict::Null)) => Err(failed("it returned NULL".into())),
        Ok(None) => Err(failed("it returned no row".into())),
        Err(Error::Program { said, .. }) => Err(failed(said)),
        Err(err) => Err(err),
    }
}

/// What a value says for a check, whatever its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Holds,
    False,
    Null,
}

impl<'a> FromSql<'a> for Verdict {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Verdict, Box<dyn std::error::Error + Sync + Send>> {
        let mut kind = kind;
        while let Kind::Domain(inner) = kind.kind() {
            kind = inner;
        }
        Ok(if *kind == Type::BOOL && raw == [0] { Verdict::False } else { Verdict::Holds })
    }

    fn from_sql_null(_: &Type) -> Result<Verdict, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Verdict::Null)
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Quotes a name for SQL.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
