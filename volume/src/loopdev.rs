//! Loop devices: a block device over a file of the FUSE server.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::error::{Doing, Error, HELD_UNSEEN};
use crate::mountinfo::{self, Mount, Mounts};
use crate::{devnode, holders, sys};

/// How often to ask for another device when somebody else was faster.
const RACES: u32 = 200;
/// How long a cleared device may take to let go of its file.
const RELEASE_PATIENCE: Duration = Duration::from_secs(5);
/// The sector size that krbd has too: a file system made on one kind of device must mount on the other.
const BLOCK_SIZE: u32 = 512;

/// A loop device bound to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoopDevice {
    /// The N of `/dev/loopN`.
    pub number: u32,
    /// `major:minor`.
    pub device: (u32, u32),
    /// The file, as the kernel reports its path.
    pub backing: PathBuf,
    /// Read-only.
    pub read_only: bool,
}

impl LoopDevice {
    /// `/dev/loopN`.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/dev/loop{}", self.number))
    }
}

/// All bound loop devices of the machine, from sysfs.
pub fn list() -> Result<Vec<LoopDevice>, Error> {
    let entries = match std::fs::read_dir("/sys/block") {
        Ok(entries) => entries,
        Err(e) => return Err(e).doing(|| "list /sys/block".to_owned()),
    };
    Ok(entries.filter_map(Result::ok).filter_map(|e| observe(e.file_name().to_str()?)).collect())
}

/// The bound loop devices over `file`, or over anything below it.
pub fn over(file: &Path) -> Result<Vec<LoopDevice>, Error> {
    let entries = std::fs::read_dir("/sys/block").doing(|| "list /sys/block".to_owned())?;
    let is_over = |name: &str| backing(name).is_some_and(|backing| backing.starts_with(file));
    let names = entries.filter_map(Result::ok).filter_map(|e| e.file_name().into_string().ok());
    Ok(names.filter(|name| is_over(name)).filter_map(|name| observe(&name)).collect())
}

/// The bound loop device with this number.
pub(crate) fn of_device(device: (u32, u32)) -> Option<LoopDevice> {
    let link = std::fs::read_link(format!("/sys/dev/block/{}:{}", device.0, device.1)).ok()?;
    observe(link.file_name()?.to_str()?)
}

fn observe(name: &str) -> Option<LoopDevice> {
    let number = name.strip_prefix("loop")?.parse().ok()?;
    let backing = backing(name)?;
    let sys = Path::new("/sys/block").join(name);
    let device = mountinfo::parse_device(&std::fs::read_to_string(sys.join("dev")).ok()?)?;
    let read_only = std::fs::read_to_string(sys.join("ro")).ok()?.trim() == "1";
    Some(LoopDevice { number, device, backing, read_only })
}

/// The file that a loop device is bound to, by the device's name.
fn backing(name: &str) -> Option<PathBuf> {
    name.strip_prefix("loop")?;
    let path = Path::new("/sys/block").join(name).join("loop/backing_file");
    let text = std::fs::read_to_string(path).ok()?;
    let text = text.trim_end_matches('\n');
    // The kernel marks a file that its server no longer lists.
    let path = PathBuf::from(text.strip_suffix(" (deleted)").unwrap_or(text));
    match path.parent() {
        Some(parent) if parent == Path::new("/") => Some(found_again(name, &path).unwrap_or(path)),
        _ => Some(path),
    }
}

/// The path of a file that was opened in a mount namespace which has gone, a container's that was replaced: the kernel tells
/// no more than where it is on its own file system. Where that is mounted here tells the rest.
fn found_again(name: &str, path: &Path) -> Option<PathBuf> {
    let device = File::open(Path::new("/dev").join(name)).ok()?;
    let on = sys::loop_file_system(&device).ok()?;
    let whole = |m: &Mount| m.root == Path::new("/") && m.kind.starts_with("fuse");
    let mount = Mounts::read().ok()?.of_device(on).filter(whole).last()?;
    Some(mount.point.join(path.file_name()?))
}

/// Binds a free loop device to `backing`, with direct I/O where the kernel accepts it. Other processes may take
/// devices at the same time.
pub(crate) fn attach(backing: &Path, read_only: bool) -> Result<LoopDevice, Error> {
    fail::fail_point!("volume::no-free-loop", |_| Err(Error::NoFreeLoop { detail: "injected".to_owned() }));
    let file = OpenOptions::new()
        .read(true)
        .write(!read_only)
        .open(backing)
        .doing(|| format!("open {}", backing.display()))?;
    let none = |what: &str, e: &dyn std::fmt::Display| Error::NoFreeLoop { detail: format!("{what}: {e}") };
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/loop-control")
        .map_err(|e| none("open /dev/loop-control", &e))?;
    let flags = sys::LO_DIRECT_IO | if read_only { sys::LO_READ_ONLY } else { 0 };
    // Many threads that ask for the next free device at once all get the same one.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for attempt in 0..RACES {
        let number = sys::loop_get_free(&control).map_err(|e| none("ask /dev/loop-control", &e))?;
        let device = open_node(number, read_only)?;
        match sys::loop_configure(&device, &file, &backing.to_string_lossy(), BLOCK_SIZE, flags) {
            Ok(()) => {
                return observe(&format!("loop{number}")).ok_or_else(|| {
                    none(&format!("/dev/loop{number}"), &"vanished while it was being bound")
                });
            }
            // Another process bound this one between the two calls.
            Err(Errno::BUSY) => std::thread::sleep(Duration::from_millis(u64::from(attempt.min(20)))),
            Err(e) => return Err(e).doing(|| format!("bind /dev/loop{number} to {}", backing.display())),
        }
    }
    Err(none("bind a loop device", &format!("lost the race for one {RACES} times")))
}

/// Opens `/dev/loopN`, and makes the node where nobody did or where it is of another device (a container's /dev has only
/// those of its start).
fn open_node(number: u32, read_only: bool) -> Result<File, Error> {
    let path = PathBuf::from(format!("/dev/loop{number}"));
    let text = std::fs::read_to_string(format!("/sys/block/loop{number}/dev"));
    let result = text
        .and_then(|text| mountinfo::parse_device(&text).ok_or_else(|| Errno::NODEV.into()))
        .and_then(|device| devnode::ensure(&path, device))
        .and_then(|()| OpenOptions::new().read(true).write(!read_only).open(&path));
    let file = result.map_err(|e| Error::NoFreeLoop { detail: format!("open {}: {e}", path.display()) })?;
    match file.metadata() {
        Ok(m) if m.file_type().is_block_device() => Ok(file),
        _ => Err(Error::NoFreeLoop { detail: format!("{} is no block device", path.display()) }),
    }
}

/// Tells the device to let go of its file, at once or with its last user.
pub(crate) fn let_go(device: &LoopDevice) -> Result<(), Error> {
    let node = open_node(device.number, true)?;
    let now = observe(&format!("loop{}", device.number));
    if now.is_some_and(|now| now.backing == device.backing) {
        match sys::loop_clear(&node) {
            Ok(()) | Err(Errno::NXIO | Errno::BUSY) => {}
            Err(e) => return Err(e).doing(|| format!("free /dev/loop{}", device.number)),
        }
    }
    Ok(())
}

/// Lets go of the device's file and waits until the kernel has. One that is already free is fine.
pub(crate) fn detach(device: &LoopDevice) -> Result<(), Error> {
    let name = format!("loop{}", device.number);
    let still_ours = || observe(&name).is_some_and(|now| now.backing == device.backing);
    let deadline = Instant::now() + RELEASE_PATIENCE;
    while still_ours() {
        {
            let node = open_node(device.number, true)?;
            // Between looking and opening it may have been freed and taken by somebody else; as long as it is
            // bound to our file, nobody else frees it.
            if !still_ours() {
                break;
            }
            match sys::loop_clear(&node) {
                Ok(()) | Err(Errno::NXIO | Errno::BUSY) => {}
                Err(e) => return Err(e).doing(|| format!("free /dev/{name}")),
            }
        }
        if !still_ours() {
            break;
        }
        if Instant::now() > deadline {
            let what = format!("/dev/{name}");
            let holders = holders::of_device(Path::new(&what));
            return Err(Error::Busy { what, because: HELD_UNSEEN, holders });
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_callers_at_once_each_get_a_loop_device_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let dir_path = dir.path().canonicalize().unwrap();
        let threads: Vec<_> = (0..8)
            .map(|i| {
                let file = dir_path.join(format!("f{i}"));
                std::fs::write(&file, vec![0; 1 << 20]).unwrap();
                std::thread::spawn(move || attach(&file, false).unwrap())
            })
            .collect();
        let devices: Vec<LoopDevice> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        let mut numbers: Vec<u32> = devices.iter().map(|d| d.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 8);
        assert_eq!(over(&dir_path).unwrap().len(), 8);
        for device in &devices {
            detach(device).unwrap();
            detach(device).unwrap();
        }
        assert_eq!(over(&dir_path).unwrap(), []);
    }

    #[test]
    fn a_busy_loop_device_names_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().canonicalize().unwrap().join("f");
        std::fs::write(&file, vec![0; 1 << 20]).unwrap();
        let device = attach(&file, true).unwrap();
        assert!(device.read_only);
        let held = File::open(device.path()).unwrap();
        let error = detach(&device).unwrap_err();
        assert!(error.is_busy() && error.to_string().contains(&std::process::id().to_string()), "{error}");
        drop(held);
        detach(&device).unwrap();
    }
}
