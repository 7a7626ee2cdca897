//! `aldaas-restore install`: this program onto a volume that it shares with an engine's container.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::args::Install;
use crate::error::Error;
use crate::source::authorities_beside;

/// Copies this program. It is at its place whole or not at all, whatever happens meanwhile; one that runs there already
/// runs on.
///
/// # Errors
/// When it cannot be read or written.
pub fn run(args: &Install) -> Result<(), Error> {
    if args.on_node {
        make_directory(&args.path)?;
    }
    // Opened, not looked up: by now its file may have another name, or none.
    let mut program =
        fs::File::open("/proc/self/exe").map_err(Error::file("read", Path::new("/proc/self/exe")))?;
    put(&mut program, &args.path, 0o755).map_err(Error::file("install this program as", &args.path))?;
    if let Some(mut authorities) = authorities() {
        let beside = authorities_beside(&args.path);
        let written = put(&mut authorities, &beside, 0o644);
        written.map_err(Error::file("write the certificate authorities to", &beside))?;
    }
    if args.on_node {
        open_to_containers(&args.path);
        remove_older_versions(&args.path);
    }
    tracing::info!("installed as {}", args.path.display());
    Ok(())
}

/// How many other versions stay: Jobs that were made with them may still start.
const OTHERS: usize = 2;
/// What SELinux lets every container read and run.
const LABEL: &[u8] = b"system_u:object_r:container_file_t:s0\0";

/// The directory that holds this version.
fn home(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

fn make_directory(path: &Path) -> Result<(), Error> {
    let home = home(path);
    let made =
        fs::create_dir_all(home).and_then(|()| fs::set_permissions(home, fs::Permissions::from_mode(0o755)));
    made.map_err(Error::file("make the directory", home))
}

/// Where there is no SELinux nothing is to be done.
fn open_to_containers(path: &Path) {
    if !Path::new("/sys/fs/selinux/enforce").exists() {
        return;
    }
    for path in [home(path), path, &authorities_beside(path)] {
        let flags = rustix::fs::XattrFlags::empty();
        if let Err(err) = rustix::fs::setxattr(path, "security.selinux", LABEL, flags) {
            tracing::warn!("SELinux may not let containers run {}: {err}", path.display());
        }
    }
}

/// What can't be removed stays: it is in nobody's way.
fn remove_older_versions(path: &Path) {
    let home = home(path);
    let all = home.parent().and_then(|all| fs::read_dir(all).ok()).into_iter().flatten().flatten();
    let others = all.map(|entry| entry.path()).filter(|other| other != home);
    let mut others: Vec<_> = others
        .filter_map(|other| {
            Some((fs::symlink_metadata(&other).ok().filter(fs::Metadata::is_dir)?.modified().ok()?, other))
        })
        .collect();
    others.sort();
    others.reverse();
    for (_, other) in others.into_iter().skip(OTHERS) {
        // Only what was installed there, so that a wrong path does no harm.
        let program = path.file_name().map(|name| other.join(name)).unwrap_or_default();
        let _ = fs::remove_file(authorities_beside(&program));
        let _ = fs::remove_file(program);
        let _ = fs::remove_dir(other);
    }
}

/// What this machine trusts, where such a file is to be found.
fn authorities() -> Option<fs::File> {
    let given = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let usual = AUTHORITIES.iter().map(PathBuf::from);
    given.into_iter().chain(usual).find_map(|path| fs::File::open(path).ok())
}

/// Where distributions keep them: Debian and Alpine, Red Hat, SUSE.
const AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// Writes all of `from` to a new file with this mode, which then takes the place of whatever is at `path`.
fn put(from: &mut impl io::Read, path: &Path, mode: u32) -> io::Result<()> {
    let draft = draft(path)?;
    let written = (|| {
        match fs::remove_file(&draft) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
            _ => {}
        }
        let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
        io::copy(from, &mut file)?;
        file.flush()?;
        // Whatever the umask says.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        drop(file); // or it could not be run yet
        fs::rename(&draft, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written
}

/// Beside it, so that it can be renamed; of ours alone.
fn draft(path: &Path) -> io::Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not the path of a file"))?;
    let mut draft = std::ffi::OsString::from(".");
    draft.push(name);
    draft.push(format!(".{}", std::process::id()));
    Ok(path.with_file_name(draft))
}
