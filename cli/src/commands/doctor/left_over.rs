//! What ended processes left behind, on this machine and in the pool.
//!
//! From the outside in: engines, mounts and devices, then images, then directories. When in doubt, it is kept: a look that fails is
//! a finding, and so is what could not be removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aldaas_api::{CloneName, GoldenImageName};
use aldaas_golden::{CLONE, Error as GoldenError, GOLDEN, Holder, Leftover, Store};
use aldaas_volume::{ImageSpec, Node};
use anyhow::Result;
use tokio::task::block_in_place;

use super::{Finding, Health};
use crate::args::Global;
use crate::{context, output, running};

/// How long the engine of a killed process may take to end, and with that to let go of its mount.
const ENGINE_PATIENCE: Duration = Duration::from_secs(30);

/// Finds what is left over, and removes it if `clean`.
pub async fn look(global: &Global, store: &Store, clean: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(error) = look_into(global, store, clean, &mut findings).await {
        findings.push(Finding {
            what: "left over",
            state: Health::Missing,
            detail: output::one_line(&error),
        });
    }
    findings
}

async fn look_into(global: &Global, store: &Store, clean: bool, findings: &mut Vec<Finding>) -> Result<()> {
    let mut note = |detail: String, removed: Option<Result<()>>| {
        let (state, detail) = match removed {
            None => (Health::LeftOver, detail),
            Some(Ok(())) => (Health::Removed, detail),
            Some(Err(error)) => (Health::LeftOver, format!("{detail}: {}", output::one_line(&error))),
        };
        findings.push(Finding { what: "left over", state, detail });
    };
    let leftovers = block_in_place(|| store.leftovers())?;
    // What is in a run directory goes by names that mean something only in its own pool.
    let here = context::owns_run_dir(global, store).then(|| context::node(global)).transpose()?;
    let work_dir = context::work_dir(&global.run_dir);
    if let Some(node) = &here {
        for observed in block_in_place(|| node.inventory())? {
            let spec = observed.spec;
            if block_in_place(|| is_ownerless(store, &spec, &leftovers))? {
                let removed = if clean { Some(close(node, &spec, &work_dir).await) } else { None };
                note(format!("{spec} is attached or mounted, and nobody uses it"), removed);
            }
        }
    }
    for leftover in &leftovers {
        let removed = clean.then(|| block_in_place(|| store.remove_leftover(leftover)).map_err(Into::into));
        note(leftover.to_string(), removed);
    }
    if let Some(node) = &here {
        for path in block_in_place(|| ownerless_work_dirs(store, &work_dir))? {
            let removed = match clean {
                true => {
                    Some(running::stop_engine(&path).await.and_then(|()| running::remove_work_dir(&path)))
                }
                false => None,
            };
            note(format!("directory {}", path.display()), removed);
        }
        if clean {
            // Nothing is closed here: this sweeps what a killed server left.
            block_in_place(|| node.clean(|_| true))?;
        }
    }
    Ok(())
}

/// Stops the engine and closes the volume, once the engine has let go of it.
async fn close(node: &Node, spec: &ImageSpec, work_dir: &Path) -> Result<()> {
    running::stop_engine(&work_dir.join(&spec.image)).await?;
    let started = Instant::now();
    loop {
        match block_in_place(|| node.close(spec)) {
            Err(error) if error.is_busy() && started.elapsed() < ENGINE_PATIENCE => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            other => return Ok(other?),
        }
    }
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
            Ok(Err(GoldenError::Foreign(_))) => leftovers.iter().any(
                |leftover| matches!(leftover, Leftover::HalfMadeClone(name) if name.as_str() == spec.image),
            ),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => false,
        },
        // Golden images are attached only while they are built.
        GOLDEN => match spec.image.parse::<GoldenImageName>() {
            Ok(name) => !store.is_being_built(&name)?,
            Err(_) => false,
        },
        _ => false,
    })
}

/// Work directories of clones and builds that are no more.
fn ownerless_work_dirs(store: &Store, work_dir: &Path) -> Result<Vec<PathBuf>> {
    let Ok(entries) = fs::read_dir(work_dir) else { return Ok(Vec::new()) };
    let mut ownerless = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_owned = match (name.parse::<GoldenImageName>(), name.parse::<CloneName>()) {
            (Ok(image), _) => store.is_being_built(&image)? || has_living_clone(store, &name)?,
            (Err(_), Ok(_)) => has_living_clone(store, &name)?,
            (Err(_), Err(_)) => false,
        };
        if !is_owned {
            ownerless.push(entry.path());
        }
    }
    Ok(ownerless)
}

fn has_living_clone(store: &Store, name: &str) -> Result<bool> {
    let Ok(name) = name.parse::<CloneName>() else { return Ok(false) };
    match store.find_clone(&name) {
        Ok(clone) => Ok(!clone.record.holder.as_ref().is_some_and(Holder::is_dead)),
        Err(GoldenError::NoClone(_) | GoldenError::Foreign(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
