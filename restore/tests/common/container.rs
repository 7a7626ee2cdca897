//! What Kubernetes does to a process: the first of its container, any user id, no capabilities, a read-only root.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use super::Room;

/// An id that no user has.
pub const NOBODY: u32 = 4242;

/// Runs its arguments so. The data directory's mount and the work directory stay writable.
const SCRIPT: &str = "\
set -e
mount --make-rprivate /
for dir in data work; do mount --bind \"$ROOM/$dir\" \"$ROOM/$dir\"; done
if [ -n \"$PASSWD\" ]; then mount --bind \"$ROOM/passwd\" /etc/passwd; fi
if [ -n \"$WITHOUT\" ]; then mount --bind /dev/null \"$WITHOUT\"; fi
mount -o remount,bind,ro /
unset ROOM PASSWD WITHOUT
exec setpriv --reuid 4242 --regid 4242 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all -- \"$@\"
";

/// How a container is made.
#[derive(Default)]
pub struct Container<'a> {
    /// What `/etc/passwd` holds.
    pub passwd: Option<&'a str>,
    /// A file that isn't there.
    pub without: Option<&'a Path>,
}

impl Container<'_> {
    /// `command` of this room, in a container.
    pub fn command(&self, room: &Room, command: &Command) -> Command {
        for (name, mode) in [("data", 0o755), ("work", 0o777)] {
            let dir = room.path(name);
            if !dir.exists() {
                fs::create_dir(&dir).unwrap();
                fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).unwrap();
                chown(&dir, (name == "data").then_some(NOBODY), None).unwrap();
            }
        }
        if let Some(text) = self.passwd {
            room.write("passwd", text);
        }
        let mut unshare = aldaas_testbed::own_mounts(&["--pid", "--fork", "--mount-proc", "--kill-child"]);
        unshare.args(["sh", "-c", SCRIPT, "sh"]);
        unshare.arg(command.get_program()).args(command.get_args());
        unshare.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        unshare.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("ROOM", room.path(""));
        unshare.env("PASSWD", self.passwd.map_or("", |_| "1"));
        unshare.env("WITHOUT", self.without.unwrap_or(Path::new("")));
        unshare
    }
}

/// The only child of process `pid`.
pub fn child_of(pid: u32) -> u32 {
    let out = Command::new("pgrep").args(["-P", &pid.to_string()]).output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().parse().unwrap()
}
