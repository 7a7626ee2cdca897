//! A name for a user without one. Kubernetes runs a container as any user id; `initdb` wants to know its name, which only
//! `/etc/passwd` tells, and that is not ours to write. Images for that case hold a library that answers in its place.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::super::Error;

const LIBRARY: &str = "libnss_wrapper.so";
/// Where distributions keep libraries; Debian one level deeper, by architecture.
const LIBRARIES: [&str; 4] = ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib"];

/// The environment in which `initdb` finds a name; nothing where there is one, or no way to give one: then it complains,
/// and is heard.
pub(super) fn named(work: &Path) -> Result<Vec<(&'static str, OsString)>, Error> {
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    if has_name(&passwd, user) || known_elsewhere(user) {
        return Ok(Vec::new());
    }
    let Some(library) = library() else { return Ok(Vec::new()) };
    tracing::info!("user {user} has no name here: {} gives it one", library.display());
    let home = work.display();
    let files = [
        ("NSS_WRAPPER_PASSWD", "passwd", format!("postgres:x:{user}:{group}:PostgreSQL:{home}:/bin/false\n")),
        ("NSS_WRAPPER_GROUP", "group", format!("postgres:x:{group}:\n")),
    ];
    let mut variables = vec![("LD_PRELOAD", library.into_os_string())];
    for (variable, name, text) in files {
        let path = work.join(name);
        fs::write(&path, text).map_err(Error::io(format!("write {}", path.display())))?;
        variables.push((variable, path.into_os_string()));
    }
    Ok(variables)
}

fn has_name(passwd: &str, user: u32) -> bool {
    passwd.lines().any(|line| line.split(':').nth(2).and_then(|id| id.parse().ok()) == Some(user))
}

/// Users may come from a directory service.
fn known_elsewhere(user: u32) -> bool {
    let mut asked = Command::new("getent");
    let asked = asked.args(["passwd", &user.to_string()]).env_clear().env("PATH", "/usr/bin:/bin");
    asked
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|said| said.success())
}

fn library() -> Option<PathBuf> {
    let deeper = |dir: &str| {
        let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let mut dirs = LIBRARIES.iter().flat_map(|dir| std::iter::once(PathBuf::from(dir)).chain(deeper(dir)));
    dirs.find_map(|dir| Some(dir.join(LIBRARY)).filter(|path| path.is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_known_by_its_number() {
        let passwd = "root:x:0:0::/root:/bin/sh\npostgres:x:999:998::/:/bin/false\n# 4242\n";
        assert!(has_name(passwd, 999) && !has_name(passwd, 998) && !has_name(passwd, 4242));
    }
}
