//! Data made unrecognisable, and its former values gone from the files: whoever has a clone can read its disk.

use std::time::Duration;

use tokio_postgres::SimpleQueryMessage;
use tokio_util::sync::CancellationToken;

use super::super::Error;
use super::query;
use super::server::Postmaster;
use crate::ran;

/// Tables with rows that were changed, or written in vain, since the server started: the old ones are still in their
/// files. So may be what a dump of PostgreSQL 18 says about the distribution of values.
const CHANGED: &str = "\
SELECT pg_catalog.format('%I.%I', schemaname, relname) FROM pg_catalog.pg_stat_all_tables
 WHERE (n_tup_upd + n_tup_del + n_dead_tup > 0 OR pg_catalog.current_setting('server_version_num')::int < 150000)
   AND schemaname <> 'information_schema'
   AND (schemaname !~ '^pg_' OR relname IN ('pg_largeobject', 'pg_statistic', 'pg_statistic_ext_data'))
 ORDER BY pg_catalog.pg_total_relation_size(relid)";
/// Sessions other than ours. They tell the statistics what they changed when they end.
const OTHERS: &str = "\
SELECT pid FROM pg_catalog.pg_stat_activity
 WHERE backend_type = 'client backend' AND pid <> pg_catalog.pg_backend_pid()";
/// How often, and how many times, we look whether they have ended.
const LOOK: Duration = Duration::from_millis(20);
const LOOKS: u32 = 250;

/// Runs one mask: one message, which the server takes for one transaction unless it says otherwise itself.
pub(super) async fn run(
    server: &mut Postmaster,
    database: &str,
    sql: &str,
    cancel: &CancellationToken,
) -> Result<u64, Error> {
    let failed = |said: String| Error::Mask { sql: ran::beginning(sql), said };
    let done = query::with(server, database, cancel, async |client| {
        let answers = client.simple_query(sql).await?;
        // Fails within a transaction, which would be rolled back without a word when we hang up.
        let closed = client.batch_execute("DISCARD ALL").await.is_ok();
        let rows = answers.iter().map(|answer| match answer {
            SimpleQueryMessage::CommandComplete(rows) => *rows,
            _ => 0,
        });
        Ok((rows.sum(), closed))
    });
    match done.await {
        Ok((rows, true)) => Ok(rows),
        Ok((_, false)) => Err(failed("it leaves a transaction open: end it with COMMIT".into())),
        Err(Error::Program { said, .. }) => Err(failed(said)),
        Err(err) => Err(err),
    }
}

/// Writes anew what changed, and begins a new log.
pub(super) async fn forget(
    server: &mut Postmaster,
    database: &str,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    for _ in 0..LOOKS {
        if query::column(server, database, OTHERS, cancel).await?.is_empty() {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    for table in query::column(server, database, CHANGED, cancel).await? {
        query::run(server, database, &format!("VACUUM (FULL) {table}"), cancel).await?;
    }
    // What is logged before the checkpoint is removed by it, segment by segment.
    query::run(server, database, "SELECT pg_catalog.pg_switch_wal()", cancel).await?;
    query::run(server, database, "CHECKPOINT", cancel).await
}
