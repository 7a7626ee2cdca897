//! Logs for people, on standard error. Standard output belongs to events.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging; `RUST_LOG` says how much (default `info`), and a test's failpoints are armed.
pub fn init() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // It would complain on standard error, with a macro that panics: who serves on after its starter is gone has
        // nobody there to listen.
        .log_internal_errors(false)
        .init();
    #[cfg(feature = "failpoints")]
    arm_failpoints();
}

/// `FAILPOINTS="restore::after-init=panic"` kills the program at that point, as `kill -9` would.
#[cfg(feature = "failpoints")]
fn arm_failpoints() {
    std::panic::set_hook(Box::new(|info| {
        tracing::error!("{info}");
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }));
    // Dropping the scenario would disarm it again.
    std::mem::forget(fail::FailScenario::setup());
}
