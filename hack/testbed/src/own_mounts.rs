//! Mount namespaces for tests.

use std::process::Command;

/// Lets go of what other tests have mounted, and becomes the command that follows. `$1`: what in a path makes it ours.
const SCRIPT: &str = r#"
awk '{print $5}' /proc/self/mountinfo | grep '/s/[0-9]*-[0-9]*/' | grep -vF "$1" | tac | xargs -r umount -l
shift
exec "$@""#;

/// A command that runs another, its arguments, in a mount namespace of its own that is no slave of ours: what this test has
/// mounted stays there for as long as that runs. `options` are more ones for unshare(1).
///
/// A new namespace begins with a copy of every mount of the machine. A copy of another test's would keep that test's devices
/// busy, so those are let go at once.
pub fn own_mounts(options: &[&str]) -> Command {
    // As in the names of scratch directories.
    let ours = format!("/s/{}-", std::process::id());
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]).args(options);
    command.args(["sh", "-c", SCRIPT, "sh", &ours]);
    command
}
