//! Running the tools, and saying what they said when they fail.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The directory `hack` of the checkout that this crate was built from.
pub(crate) fn hack() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is below hack/").to_owned()
}

/// Runs `command` with `stdin`; its stdout, or what it complained of.
pub(crate) fn try_run(command: &mut Command, stdin: &[u8]) -> Result<Vec<u8>, String> {
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{shown}: {error}; hack/deps installs what is missing"))?;
    let mut pipe = child.stdin.take().expect("stdin was piped");
    let output = std::thread::scope(|scope| {
        // A program that ends early closes the pipe; what it says then tells more than EPIPE.
        scope.spawn(move || drop(pipe.write_all(stdin)));
        child.wait_with_output()
    })
    .map_err(|error| format!("{shown}: {error}"))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(format!("{shown}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
    }
}

/// Like [`try_run`], with a failure as a panic.
pub(crate) fn run(command: &mut Command, stdin: &[u8]) -> Vec<u8> {
    try_run(command, stdin).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs one of Ceph's command line tools on the cluster of `conf`.
pub(crate) fn tool<I: AsRef<OsStr>>(name: &str, conf: &Path, args: impl IntoIterator<Item = I>) -> String {
    let output = run(Command::new(name).arg("-c").arg(conf).args(args), b"");
    String::from_utf8_lossy(&output).into_owned()
}

/// Sends monitor commands in order over one connection.
pub(crate) fn mon_commands(conf: &Path, commands: &[serde_json::Value]) -> Result<(), String> {
    let lines: String = commands.iter().map(|command| format!("{command}\n")).collect();
    let script = hack().join("lib/mon-commands.py");
    try_run(Command::new("/usr/bin/python3").arg(script).arg(conf), lines.as_bytes()).map(drop)
}
