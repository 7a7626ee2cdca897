//! The end of a program.

use std::io::Write as _;

/// Ends this process at once, without what libraries have registered for its end: threads of librados that still run would use
/// what those take away, and die of it. To be called last in `main`.
///
/// Implements: `_exit`.
pub fn exit_at_once(code: u8) -> ! {
    let _ = std::io::stdout().flush();
    // SAFETY: takes a number and never returns; nothing of this process is used afterwards.
    unsafe { libc::_exit(i32::from(code)) }
}
