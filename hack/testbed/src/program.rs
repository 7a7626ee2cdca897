//! Where the built programs are.

use std::env;
use std::path::{Path, PathBuf};

const STATIC_TARGET: &str = "x86_64-unknown-linux-gnu";

pub(crate) fn find(name: &str) -> PathBuf {
    let exe = env::current_exe().expect("the path of the running test");
    let (root, profile) =
        target_dir(&exe).unwrap_or_else(|| panic!("{} is not below a cargo target directory", exe.display()));
    let (path, how) = if name == "aldaas-restore" {
        (
            root.join(STATIC_TARGET).join(profile).join(name),
            format!(
                "RUSTFLAGS='-C target-feature=+crt-static' cargo build -p aldaas-restore --target {STATIC_TARGET}"
            ),
        )
    } else {
        (root.join(profile).join(name), format!("cargo build --bin {name}"))
    };
    assert!(path.exists(), "{} is not built: run `make test`, or `{how}`", path.display());
    path
}

/// The target directory and the profile's directory name that `exe`, a program that cargo built, is in.
fn target_dir(exe: &Path) -> Option<(PathBuf, String)> {
    // target[/triple]/profile/deps/test-hash, or without deps for a program
    let mut profile = exe.parent()?;
    if profile.ends_with("deps") {
        profile = profile.parent()?;
    }
    let above = profile.parent()?;
    let root =
        if above.file_name().is_some_and(|name| name == STATIC_TARGET) { above.parent()? } else { above };
    Some((root.to_owned(), profile.file_name()?.to_str()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_directory_is_found_from_a_tests_own_path() {
        let want = Some((PathBuf::from("/src/target"), "debug".to_owned()));
        assert_eq!(target_dir(Path::new("/src/target/debug/deps/clone-0a1b")), want);
        assert_eq!(
            target_dir(Path::new("/src/target/x86_64-unknown-linux-gnu/debug/deps/restore-0a1b")),
            want
        );
        assert_eq!(target_dir(Path::new("/src/target/debug/aldaas")), want);
        let release = Some((PathBuf::from("/elsewhere"), "release".to_owned()));
        assert_eq!(target_dir(Path::new("/elsewhere/release/deps/clone-0a1b")), release);
    }
}
