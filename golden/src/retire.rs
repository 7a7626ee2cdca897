//! Taking a golden image away without breaking a clone that lives on it.
//!
//! 1. the state becomes *retired*, and with that the image is no longer `latest` and takes no new clones;
//! 2. it moves to the trash: its name is free, its clones go on;
//! 3. its snapshot is removed: while clones live on it, RBD keeps it aside and drops it with the last of them;
//! 4. the image is removed. While clones live this is refused, and [`Store::purge`](crate::Store::purge) tries again later.
//!
//! Every step may be repeated, so a crash anywhere is repaired by the next purge.

use aldaas_api::GoldenImageName;
use fail::fail_point;

use crate::trash::Gone;
use crate::{Error, Result, State, Store, image_name};

impl Store {
    /// Retires a golden image. The newest ready one of its database only if `force` is said. Says whether its space is free
    /// already.
    pub fn retire(&self, name: &GoldenImageName, force: bool) -> Result<Gone> {
        let image = self.golden_image(name)?;
        let state = image.record.state;
        if matches!(state, State::Candidate | State::Sealed) {
            return Err(Error::WrongState { name: name.clone(), state, wanted: "ready or failed" });
        }
        if state == State::Ready && !force && self.latest(name.database())?.name == *name {
            return Err(Error::NewestReady(name.clone()));
        }
        if state != State::Retired {
            self.change_state(name, &image.id, state, State::Retired, &[])?;
        }
        fail_point!("golden::after-retire");
        match self.golden.trash_move(&image_name(name)?, std::time::Duration::ZERO) {
            // Somebody else retires it too, and was faster.
            Err(error) if error.is_not_found() => {}
            other => other?,
        }
        fail_point!("golden::after-retire-trash");
        self.purge_golden(&image.id)
    }
}
