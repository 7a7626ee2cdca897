//! What this machine has for the work.

use std::path::{Path, PathBuf};

use super::Finding;
use crate::args::Global;
use crate::{context, output};

/// Looks for everything that an ingest or a clone will need here.
pub fn look(global: &Global) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.push(match context::require_root() {
        Ok(()) => Finding::ok("user", "root"),
        Err(error) => Finding::missing("user", output::one_line(&error)),
    });
    findings.push(attach());
    let fuse_program = context::fuse_program(global);
    findings.push(match context::version_of(&fuse_program) {
        Some(version) => Finding::ok("fuse server", format!("{version} ({})", fuse_program.display())),
        None => {
            Finding::missing("fuse server", "aldaas-fuse is not beside aldaas nor in PATH: --fuse-program")
        }
    });
    match context::supervisor(global) {
        Ok(supervisor) => {
            findings.push(match context::version_of(&supervisor.program) {
                Some(version) => {
                    Finding::ok("supervisor", format!("{version} ({})", supervisor.program.display()))
                }
                None => Finding::missing(
                    "supervisor",
                    "aldaas-restore is not beside aldaas nor in PATH: say where it is with --restore-program",
                ),
            });
            findings.push(Finding::ok(
                "engine user",
                format!("{} ({})", global.engine_user, supervisor.user.uid),
            ));
        }
        Err(error) => findings.push(Finding::missing("engine user", output::one_line(&error))),
    }
    for (program, package) in [("mkfs.ext4", "e2fsprogs"), ("e2fsck", "e2fsprogs"), ("mkfs.xfs", "xfsprogs")]
    {
        if find(program).is_none() {
            findings.push(Finding::missing("file system", format!("{program}: apt install {package}")));
        }
    }
    findings.push(postgres());
    findings
}

fn attach() -> Finding {
    let fuse = Path::new("/dev/fuse").exists() && Path::new("/dev/loop-control").exists();
    match (Path::new("/sys/bus/rbd").exists(), fuse) {
        (true, _) => Finding::ok("attach", "krbd: the kernel's own rbd"),
        (false, true) => Finding::ok("attach", "fuse: this kernel has no rbd (`modprobe rbd` may bring it)"),
        (false, false) => Finding::missing(
            "attach",
            "the kernel has neither rbd nor fuse and loop: `modprobe rbd`, or fuse and loop",
        ),
    }
}

fn postgres() -> Finding {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut servers: Vec<PathBuf> = debian.map(|version| version.path().join("bin/postgres")).collect();
    servers.extend(find("postgres"));
    servers.sort();
    servers.dedup();
    let versions: Vec<String> = servers.iter().filter_map(|server| context::version_of(server)).collect();
    match versions.is_empty() {
        true => Finding::missing("postgres", "no server found: apt install postgresql"),
        false => Finding::ok("postgres", versions.join("; ")),
    }
}

/// A program in PATH or where administrators' programs are.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|dir| dir.join(program)).find(|path| path.is_file())
}
