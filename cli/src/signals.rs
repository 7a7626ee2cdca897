//! Ctrl-C and its like: the first asks for a clean end, the second ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::output;

/// What the user's signals ask for.
#[derive(Clone)]
pub struct Signals {
    /// Cancelled by the first SIGINT, SIGTERM or SIGHUP.
    pub cancel: CancellationToken,
    ignore_interrupts: Arc<AtomicBool>,
}

impl Signals {
    /// Watches for them from now on.
    pub fn watch() -> anyhow::Result<Self> {
        let signals = Self { cancel: CancellationToken::new(), ignore_interrupts: Arc::default() };
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let watched = signals.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {
                        if watched.ignore_interrupts.load(Ordering::SeqCst) {
                            continue;
                        }
                    }
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                watched.stop();
            }
        });
        Ok(signals)
    }

    /// Leaves Ctrl-C to a command of the user's, which the terminal tells as well: it may mean less than the end, as in `psql`.
    pub fn leave_interrupts_to_command(&self) {
        self.ignore_interrupts.store(true, Ordering::SeqCst);
    }

    /// The command has ended: Ctrl-C is for us again.
    pub fn take_interrupts_back(&self) {
        self.ignore_interrupts.store(false, Ordering::SeqCst);
    }

    fn stop(&self) {
        if self.cancel.is_cancelled() {
            output::tell(format_args!("ended at once: `aldaas doctor --clean` removes what is left over"));
            std::process::exit(130);
        }
        self.cancel.cancel();
        output::tell(format_args!("stopping (once more ends at once)"));
    }
}
