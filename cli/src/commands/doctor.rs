//! `aldaas doctor`: what is here, what is left over, what this machine lacks.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use aldaas_api::{CloneName, GoldenImageName};
use aldaas_golden::{CLONE, Error as GoldenError, GOLDEN, Holder, Leftover, Store};
use aldaas_volume::{ImageSpec, Node};
use anyhow::Result;
use serde::Serialize;

use crate::args::{Doctor, Global, Output};
use crate::{context, output, session};

#[derive(Serialize)]
struct Finding {
    what: &'static str,
    state: Health,
    detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Health {
    Ok,
    Missing,
    LeftOver,
    Removed,
}

pub async fn run(global: &Global, command: Doctor) -> Result<ExitCode> {
    if command.clean {
        context::require_root()?;
    }
    let mut findings = machine(global);
    let store = tokio::task::block_in_place(|| context::store(global));
    let node = context::node(global)?;
    match &store {
        Ok(store) => {
            findings.push(ok("ceph", format!("{}, pool {}", global.ceph_conf.display(), store.pool())));
            findings.extend(left_over(global, store, &node, command.clean).await?);
        }
        Err(error) => {
            findings.push(Finding { what: "ceph", state: Health::Missing, detail: output::one_line(error) })
        }
    }
    print(global, &findings)?;
    let healthy = findings.iter().all(|finding| matches!(finding.state, Health::Ok | Health::Removed));
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(global: &Global, findings: &[Finding]) -> Result<()> {
    match global.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(findings)?),
        Output::Table => {
            let rows = findings.iter().map(|finding| {
                let mark = match finding.state {
                    Health::Ok => "ok",
                    Health::Missing => "MISSING",
                    Health::LeftOver => "LEFT OVER",
                    Health::Removed => "removed",
                };
                vec![finding.what.to_owned(), mark.to_owned(), finding.detail.clone()]
            });
            println!("{}", output::table(vec!["what", "state", "detail"], rows));
            if findings.iter().any(|finding| finding.state == Health::LeftOver) {
                eprintln!("`aldaas doctor --clean` removes what is left over");
            }
        }
    }
    Ok(())
}

fn ok(what: &'static str, detail: String) -> Finding {
    Finding { what, state: Health::Ok, detail }
}

/// What this machine has for the work.
fn machine(global: &Global) -> Vec<Finding> {
    let missing = |what, detail: &str| Finding { what, state: Health::Missing, detail: detail.to_owned() };
    let mut findings = Vec::new();
    let krbd = Path::new("/sys/bus/rbd").exists();
    let fuse = Path::new("/dev/fuse").exists() && Path::new("/dev/loop-control").exists();
    findings.push(match (krbd, fuse) {
        (true, _) => ok("attach", "krbd: the kernel's own rbd".into()),
        (false, true) => ok("attach", "fuse: this kernel has no rbd (`modprobe rbd` may bring it)".into()),
        (false, false) => {
            missing("attach", "the kernel has neither rbd nor fuse and loop: modprobe rbd, or fuse and loop")
        }
    });
    match context::supervisor(global) {
        Ok(supervisor) => {
            findings.push(match context::version_of(&supervisor.program) {
                Some(version) => ok("supervisor", format!("{version} ({})", supervisor.program.display())),
                None => missing(
                    "supervisor",
                    "aldaas-restore is not beside aldaas nor in PATH: say where with --restore-program",
                ),
            });
            findings.push(ok("engine user", format!("{} ({})", global.engine_user, supervisor.user.uid)));
        }
        Err(error) => findings.push(missing("engine user", &output::one_line(&error))),
    }
    findings.push(match postgres_versions() {
        versions if versions.is_empty() => missing("postgres", "no server found: apt install postgresql"),
        versions => ok("postgres", versions.join(", ")),
    });
    findings
}

/// Server versions in the place where Debian puts them.
fn postgres_versions() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/usr/lib/postgresql") else { return Vec::new() };
    let with_server = entries.flatten().filter(|entry| entry.path().join("bin/postgres").exists());
    with_server.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Finds what ended processes left behind, on this machine and in the pool, and removes it if `clean`.
///
/// From the outside in: engines, mounts and devices, then images, then directories.
async fn left_over(global: &Global, store: &Store, node: &Node, clean: bool) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut note = |detail: String, removed: Option<Result<()>>| {
        let (state, detail) = match removed {
            None => (Health::LeftOver, detail),
            Some(Ok(())) => (Health::Removed, detail),
            Some(Err(error)) => (Health::LeftOver, format!("{detail}: {}", output::one_line(&error))),
        };
        findings.push(Finding { what: "left over", state, detail });
    };
    let work_dir = context::work_dir(&global.run_dir);
    let leftovers = tokio::task::block_in_place(|| store.leftovers())?;
    for spec in tokio::task::block_in_place(|| node.inventory())?.into_iter().map(|observed| observed.spec) {
        if !is_ownerless(store, &spec, &leftovers)? {
            continue;
        }
        let removed = match clean {
            true => {
                session::stop_engine(&work_dir.join(&spec.image)).await?;
                Some(tokio::task::block_in_place(|| node.close(&spec)).map_err(Into::into))
            }
            false => None,
        };
        note(format!("{spec} is attached or mounted, and nobody uses it"), removed);
    }
    for leftover in &leftovers {
        let removed = clean
            .then(|| tokio::task::block_in_place(|| store.remove_leftover(leftover)).map_err(Into::into));
        note(leftover.to_string(), removed);
    }
    for path in ownerless_work_dirs(store, &work_dir)? {
        let detail = format!("directory {}", path.display());
        note(detail, clean.then(|| session::remove_work_dir(&path)));
    }
    if clean {
        // Nothing is closed here: this sweeps what a killed server left.
        tokio::task::block_in_place(|| node.clean(|_| true))?;
    }
    Ok(findings)
}

/// Whether nobody alive answers for an image that is attached here.
fn is_ownerless(store: &Store, spec: &ImageSpec, leftovers: &[Leftover]) -> Result<bool> {
    if spec.pool != store.pool().to_string() {
        return Ok(false);
    }
    Ok(match spec.namespace.as_str() {
        CLONE => match spec.image.parse::<CloneName>().map(|name| store.find_clone(&name)) {
            Ok(Ok(clone)) => clone.record.holder.as_ref().is_some_and(Holder::is_dead),
            Ok(Err(GoldenError::NoClone(_))) => true,
            Ok(Err(GoldenError::Foreign(_))) => leftovers.iter().any(|leftover| names(leftover, &spec.image)),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => false,
        },
        GOLDEN => match spec.image.parse::<GoldenImageName>() {
            Ok(name) => {
                let gone = matches!(store.golden_image(&name), Err(GoldenError::NoImage(_)));
                gone || leftovers.iter().any(|leftover| names(leftover, &spec.image))
            }
            Err(_) => false,
        },
        _ => false,
    })
}

fn names(leftover: &Leftover, image: &str) -> bool {
    match leftover {
        Leftover::EndedClone(name) | Leftover::HalfMadeClone(name) => name.as_str() == image,
        Leftover::UnfinishedBuild(name) | Leftover::BlankImage(name) | Leftover::HalfRetired(name) => {
            name.to_string() == image
        }
        Leftover::Trash(_) => false,
    }
}

/// Work directories of clones and builds that are no more.
fn ownerless_work_dirs(store: &Store, work_dir: &Path) -> Result<Vec<std::path::PathBuf>> {
    let Ok(entries) = fs::read_dir(work_dir) else { return Ok(Vec::new()) };
    let mut ownerless = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let building = match name.parse::<GoldenImageName>() {
            Ok(image) => store.is_being_built(&image)?,
            Err(_) => false,
        };
        let cloned = match name.parse::<CloneName>() {
            Ok(clone) => match store.find_clone(&clone) {
                Ok(clone) => !(clone.record.holder.as_ref().is_some_and(Holder::is_dead)),
                Err(GoldenError::NoClone(_) | GoldenError::Foreign(_)) => false,
                Err(error) => return Err(error.into()),
            },
            Err(_) => false,
        };
        if !building && !cloned {
            ownerless.push(entry.path());
        }
    }
    Ok(ownerless)
}
