//! What is made unrecognisable before anybody can clone it.

use std::time::Instant;

use aldaas_api::event::Step;
use aldaas_api::manifest::Ran;
use tokio_util::sync::CancellationToken;

use crate::command::UserCommand;
use crate::engine::Engine;
use crate::error::Error;
use crate::ran;

/// What the user wants masked: first by statements, then by a command.
#[derive(Clone, Copy, Debug)]
pub struct Mask<'a> {
    /// Statements, each of them perhaps several, in transactions of their own.
    pub sql: &'a [String],
    /// A command, or no words.
    pub command: UserCommand<'a>,
}

impl Mask<'_> {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sql.is_empty() && self.command.words.is_empty()
    }

    /// Masks, and leaves nothing in the files of what was masked.
    ///
    /// # Errors
    /// When any of it fails.
    pub async fn run<E: Engine>(
        &self,
        engine: &E,
        server: &mut E::Server,
        cancel: &CancellationToken,
    ) -> Result<Vec<Ran>, Error> {
        let mut ran = Vec::new();
        for sql in self.sql {
            let since = Instant::now();
            let rows = engine.mask(server, sql, cancel).await?;
            ran.push(ran::sql(Step::Mask, sql, Some(rows), since));
        }
        if !self.command.words.is_empty() {
            let since = Instant::now();
            engine.run(server, &self.command, cancel).await?;
            ran.push(ran::command(Step::Mask, self.command.words, since));
        }
        engine.forget(server, cancel).await?;
        Ok(ran)
    }
}
