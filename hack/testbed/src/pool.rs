//! A pool for one test.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::{command, unique};

/// A pool with one placement group, ready for RBD. Deleted when dropped, with all that is in it.
#[derive(Debug)]
pub struct TestPool {
    conf: PathBuf,
    name: String,
}

impl TestPool {
    pub(crate) fn create(conf: &Path) -> TestPool {
        let name = unique("test-");
        command::mon_commands(
            conf,
            &[
                json!({"prefix": "osd pool create", "pool": name, "pg_num": 1, "pgp_num": 1}),
                json!({"prefix": "osd pool application enable", "pool": name, "app": "rbd"}),
            ],
        )
        .unwrap_or_else(|error| panic!("create pool {name}: {error}"));
        command::run(Command::new("rbd").arg("-c").arg(conf).args(["pool", "init", &name]), b"");
        TestPool { conf: conf.to_owned(), name }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for TestPool {
    fn drop(&mut self) {
        let delete = json!({
            "prefix": "osd pool delete", "pool": self.name, "pool2": self.name,
            "yes_i_really_really_mean_it": true,
        });
        // The cluster may be gone by intent; a panic here would hide the test's own.
        if let Err(error) = command::mon_commands(&self.conf, &[delete]) {
            eprintln!("delete pool {}: {error}", self.name);
        }
    }
}
