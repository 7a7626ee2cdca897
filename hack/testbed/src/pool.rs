//! A pool for one test.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::keeper::Keeper;
use crate::{command, unique};

/// A pool with one placement group, ready for RBD. Deleted when dropped, with all that is in it.
#[derive(Debug)]
pub struct TestPool {
    name: String,
    whose: Whose,
}

#[derive(Debug)]
enum Whose {
    /// Lent for as long as the connection lasts.
    Keepers(#[expect(dead_code, reason = "what counts is when it is closed")] Keeper),
    Ours {
        conf: PathBuf,
    },
}

impl TestPool {
    pub(crate) fn create(conf: &Path) -> TestPool {
        if let Some(mut keeper) = Keeper::of(conf) {
            let answer = keeper.ask(&json!({"lend": true}));
            let name =
                answer["pool"].as_str().unwrap_or_else(|| panic!("a pool is lent: {answer}")).to_owned();
            return TestPool { name, whose: Whose::Keepers(keeper) };
        }
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
        TestPool { name, whose: Whose::Ours { conf: conf.to_owned() } }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for TestPool {
    fn drop(&mut self) {
        let Whose::Ours { conf } = &self.whose else { return };
        let delete = json!({
            "prefix": "osd pool delete", "pool": self.name, "pool2": self.name,
            "yes_i_really_really_mean_it": true,
        });
        // The cluster may be gone by intent; a panic here would hide the test's own.
        if let Err(error) = command::mon_commands(conf, &[delete]) {
            eprintln!("delete pool {}: {error}", self.name);
        }
    }
}
