//! How the program is told to stop: the first signal asks, the second one does not wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Says that it is time to stop, and why.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
    signal: Arc<AtomicU8>,
}

impl Shutdown {
    /// Watches for SIGINT and SIGTERM. The second one ends the program at once: the children die with it.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn watch() -> std::io::Result<Shutdown> {
        let shutdown = Shutdown::default();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let told = shutdown.clone();
        tokio::spawn(async move {
            loop {
                let number = tokio::select! {
                    _ = interrupt.recv() => SignalKind::interrupt(),
                    _ = terminate.recv() => SignalKind::terminate(),
                };
                let number = u8::try_from(number.as_raw_value()).unwrap_or(u8::MAX);
                if told.token.is_cancelled() {
                    std::process::exit(128 + i32::from(number));
                }
                told.signal.store(number, Ordering::Relaxed);
                told.token.cancel();
            }
        });
        Ok(shutdown)
    }

    /// Cancelled at the first signal.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// The exit code of a program that a signal ended: 130 for Ctrl-C, 143 for SIGTERM.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        128 + self.signal.load(Ordering::Relaxed)
    }
}
