//! What is remembered over restarts of the plugin: a small file below the run directory, worth nothing after a reboot.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use aldaas_api::CloneName;
use serde::{Deserialize, Serialize};

use super::Track;

/// What is remembered of each clone.
pub type Tracks = BTreeMap<CloneName, Track>;

#[derive(Deserialize)]
struct Saved {
    boot: String,
    clones: Tracks,
}

#[derive(Serialize)]
struct Save<'a> {
    boot: &'a str,
    clones: &'a Tracks,
}

/// The file.
pub struct File {
    path: PathBuf,
    boot: String,
}

impl File {
    /// In the run directory.
    pub fn new(run_dir: &Path) -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self { path: run_dir.join("idle.json"), boot: boot.trim().to_owned() }
    }

    /// What was saved since this machine was started. What can't be read is forgotten: idleness then begins anew.
    pub fn load(&self) -> Tracks {
        let saved =
            std::fs::read(&self.path).ok().and_then(|text| serde_json::from_slice::<Saved>(&text).ok());
        saved
            .filter(|saved| saved.boot == self.boot && !self.boot.is_empty())
            .map(|saved| saved.clones)
            .unwrap_or_default()
    }

    /// Replaces what was saved, in one step; nothing to save, no file.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn save(&self, tracks: &Tracks) -> io::Result<()> {
        if tracks.is_empty() {
            return match std::fs::remove_file(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            };
        }
        let text = serde_json::to_vec(&Save { boot: &self.boot, clones: tracks })?;
        let new = self.path.with_extension("json.new");
        std::fs::write(&new, text)?;
        std::fs::rename(&new, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::idle::block::Io;

    #[test]
    fn what_was_saved_comes_back_until_the_machine_is_started_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::new(dir.path());
        assert!(file.load().is_empty());
        let io = Io { read: 1, written: 2 };
        let tracks = Tracks::from([(
            "a".parse().unwrap(),
            Track { since: Some(Duration::from_millis(1500)), io, last: io },
        )]);
        file.save(&tracks).unwrap();
        assert_eq!(File::new(dir.path()).load(), tracks);
        assert!(File { boot: "another".into(), ..File::new(dir.path()) }.load().is_empty());
        std::fs::write(dir.path().join("idle.json"), "{").unwrap();
        assert!(file.load().is_empty());
        file.save(&Tracks::new()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
