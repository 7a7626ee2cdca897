//! A pod at work: it appends to a file and syncs, and notes every error.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

pub struct Writer {
    stop: Arc<AtomicBool>,
    writes: Arc<AtomicU64>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Writer {
    pub fn start(path: &Path) -> Self {
        let mut file = File::create(path).unwrap();
        let (stop, writes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = std::thread::spawn({
            let (stop, writes) = (stop.clone(), writes.clone());
            move || {
                while !stop.load(Ordering::SeqCst) {
                    file.write_all(&[7; 8192])?;
                    file.sync_data()?;
                    writes.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(())
            }
        });
        Self { stop, writes, thread: Some(thread) }
    }

    /// Waits until more was written.
    pub fn goes_on(&self) {
        let seen = self.writes.load(Ordering::SeqCst);
        super::eventually("the pod goes on writing", || {
            let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            assert!(!ended, "the pod's writes failed");
            self.writes.load(Ordering::SeqCst) > seen + 3
        });
    }

    /// Waits until a write fails.
    pub fn expect_cut_off(mut self) {
        self.thread.take().unwrap().join().unwrap().unwrap_err();
    }

    /// The pod ends; none of its writes failed.
    pub fn stop(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
