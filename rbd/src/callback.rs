//! Which threads belong to Ceph, and how a handle is released without waiting on oneself.
//!
//! librbd runs completions on its own threads. Closing an image or shutting a connection down waits for these threads, so
//! a handle whose last owner goes away inside a completion must be released elsewhere, or the thread waits for itself.

use std::cell::Cell;

thread_local! {
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread as one of Ceph's for as long as it lives.
pub(crate) struct CallbackGuard {
    before: bool,
}

impl CallbackGuard {
    pub(crate) fn enter() -> Self {
        Self { before: IN_CALLBACK.replace(true) }
    }
}

impl Drop for CallbackGuard {
    fn drop(&mut self) {
        IN_CALLBACK.set(self.before);
    }
}

/// Whether this thread is inside a completion of librbd.
pub(crate) fn in_callback() -> bool {
    // A thread that is ending has no such storage any more; it isn't in a completion then.
    IN_CALLBACK.try_with(Cell::get).unwrap_or(false)
}

/// Runs `release` here, or on a thread of its own when this one is Ceph's.
pub(crate) fn release(release: impl FnOnce() + Send + 'static) {
    if in_callback() {
        // Rare: only when a completion held the last owner. Without a thread left to start, leaking beats a deadlock.
        let _ = std::thread::Builder::new().name("rbd-release".into()).spawn(release);
    } else {
        release();
    }
}
