//! Writes the CustomResourceDefinitions into a directory, one file each, as the chart ships them: see `hack/crds`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use kube::ResourceExt as _;

fn main() -> Result<()> {
    let directory = PathBuf::from(std::env::args_os().nth(1).context("say where: crds DIRECTORY")?);
    for definition in aldaas_api::kinds::definitions()? {
        let path = directory.join(format!("{}.yaml", definition.name_any()));
        let text = serde_saphyr::to_string(&definition)?;
        let text = format!("# Made from api/src/kinds by hack/crds. Do not edit.\n{text}");
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}
