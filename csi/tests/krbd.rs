//! The plugin on the kernel's own RBD client, for real, in a guest.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use aldaas_testbed::Testbed;
use common::{Golden, Objects};

const POOL: &str = "aldaas";

#[test]
fn a_plugin_on_a_kernel_with_rbd_publishes_keeps_and_takes_back_clones_and_leaves_nothing() {
    let scratch = Testbed::get().scratch();
    let csi = Path::new(env!("CARGO_MANIFEST_DIR"));
    let plugin = Testbed::program("aldaas-csi");
    let kubelet = plugin.with_file_name("examples").join("kubelet");
    assert!(kubelet.exists(), "{} is not built: `cargo build -p aldaas-csi --examples`", kubelet.display());
    let _ = Objects::new(scratch.path());
    let mut guest = Command::new(csi.join("tests/krbd-guest.sh"))
        .env("PLUGIN", &plugin)
        .env("KUBELET", &kubelet)
        .env("OBJECTS", scratch.path().join("objects.json"))
        .env("HACK", csi.with_file_name("hack"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) = (guest.stdin.take().unwrap(), BufReader::new(guest.stdout.take().unwrap()));
    // It says where its cluster is, and waits.
    let mut conf = String::new();
    stdout.read_line(&mut conf).unwrap();
    let golden = Golden::new(Path::new(conf.trim_end()), POOL, &scratch.path().join("build"));
    golden.build(1);
    stdin.write_all(b"the golden image is there\n").unwrap();
    let mut said = String::new();
    stdout.by_ref().take(1 << 20).read_to_string(&mut said).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert!(said.contains("GUEST PASSED"), "{said}");
    // It waits once more before its cluster goes.
    let named = golden.store.clones().unwrap();
    let trash = golden.store.trashed().unwrap();
    drop(golden);
    drop(stdin);
    assert!(guest.wait().unwrap().success(), "{said}");
    assert_eq!(named.len(), 1, "of all clones only the named one is kept: {named:?}");
    assert!(trash.is_empty(), "{trash:?}");
}
