//! PostgreSQL's programs, which every distribution keeps somewhere else.

use std::path::{Path, PathBuf};

use super::super::Error;

/// Where Debian and its kin keep one directory per major version.
const DEBIAN: &str = "/usr/lib/postgresql";
/// The oldest version that knows all the settings we use.
const OLDEST: u32 = 13;

/// One installation.
#[derive(Clone, Debug)]
pub struct Binaries {
    dir: PathBuf,
}

impl Binaries {
    /// Looks in `dir` alone where given, else along `PATH`, else takes Debian's newest.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(dir: Option<&Path>) -> Result<Binaries, Error> {
        let candidates = match dir {
            Some(dir) => vec![dir.to_owned()],
            None => std::env::var_os("PATH")
                .map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
                .unwrap_or_default()
                .into_iter()
                .chain(debian())
                .collect(),
        };
        // `psql` alone is on many a PATH: the server is what counts.
        let Some(dir) =
            candidates.iter().find(|dir| dir.join("initdb").is_file() && dir.join("postgres").is_file())
        else {
            let looked = match dir {
                Some(dir) => vec![dir.display().to_string()],
                None => vec!["PATH".into(), format!("{DEBIAN}/*/bin")],
            };
            return Err(Error::NotFound { program: "postgres", looked });
        };
        // A link (/usr/bin/postgres → …/bin/postgres) hides where the others are.
        let real = dir.join("initdb").canonicalize().ok().and_then(|path| path.parent().map(Path::to_owned));
        let dir = real.unwrap_or_else(|| dir.clone());
        Ok(Binaries { dir })
    }

    /// The directory that holds them.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of `program`.
    #[must_use]
    pub fn program(&self, program: &str) -> PathBuf {
        self.dir.join(program)
    }

    /// The version, as in `15.18`. Asking costs a process: a clone that is to be served does without.
    ///
    /// # Errors
    /// When the server does not tell, or is too old.
    pub fn version(&self) -> Result<String, Error> {
        let version = version(&self.program("postgres"))?;
        if major(&version) < OLDEST {
            return Err(Error::Refused(format!(
                "PostgreSQL {version} is too old: version {OLDEST} or newer is needed (--bin-dir)"
            )));
        }
        Ok(version)
    }
}

fn debian() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(DEBIAN) else { return Vec::new() };
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin")))
        })
        .collect();
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.into_iter().map(|(_, dir)| dir).collect()
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` → `15.18`
fn version(postgres: &Path) -> Result<String, Error> {
    let out = std::process::Command::new(postgres).arg("--version").output();
    let out = out.map_err(Error::io(format!("run {} --version", postgres.display())))?;
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let version =
        said.split_whitespace().nth(2).filter(|version| version.starts_with(|c: char| c.is_ascii_digit()));
    version.map(str::to_owned).ok_or(Error::Program { program: "postgres --version", said })
}

fn major(version: &str) -> u32 {
    let digits = version.find(|c: char| !c.is_ascii_digit()).map_or(version, |end| &version[..end]);
    digits.parse().unwrap_or(0)
}

/// Whether `psql` of that version knows `\restrict` (a security fix of August 2025).
pub(super) fn can_restrict(version: &str) -> bool {
    let minor = version.split_once('.').map_or(0, |(_, minor)| major(minor));
    match major(version) {
        13 => minor >= 22,
        14 => minor >= 19,
        15 => minor >= 14,
        16 => minor >= 10,
        17 => minor >= 6,
        major => major >= 18,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_understood() {
        assert_eq!(["15.18", "18beta1", "9.6.24"].map(major), [15, 18, 9]);
        assert_eq!(
            ["15.14", "15.13", "18.0", "17.6", "12.99"].map(can_restrict),
            [true, false, true, true, false]
        );
    }

    #[test]
    fn a_directory_without_postgres_is_named_in_the_error() {
        let err = Binaries::find(Some(Path::new("/nowhere"))).unwrap_err().to_string();
        assert!(err.contains("/nowhere") && err.contains("--bin-dir"), "{err}");
    }
}
