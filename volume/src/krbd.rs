//! The kernel's RBD client, through sysfs alone.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aldaas_rbd::ConnectOptions;
use rustix::io::Errno;

use crate::cephconf::{self, Access};
use crate::error::{Doing, Error, HELD_UNSEEN};
use crate::identity::ClusterIdentity;
use crate::spec::{How, ImageSpec};
use crate::{devnode, holders, mountinfo, tool};

/// The option that gives a mapping a client of its own.
const NO_SHARE: &str = "noshare";
const BUS: &str = "/sys/bus/rbd";
/// The size of the kernel's table of block majors.
const MAJORS: u32 = 255;
/// How long an unmap waits for whoever looks at the device in passing (udev probes new devices).
const UNMAP_PATIENCE: Duration = Duration::from_secs(5);

/// A mapped image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KrbdDevice {
    /// The N of `/dev/rbdN`.
    pub id: u32,
    pub spec: ImageSpec,
    /// `-` for the image itself.
    pub snapshot: String,
    /// `major:minor`.
    pub device: (u32, u32),
    pub read_only: bool,
    /// Mapped through a client that no other image shares.
    pub own_client: bool,
    /// Where it is mapped from.
    pub cluster: ClusterIdentity,
}

impl KrbdDevice {
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/dev/rbd{}", self.id))
    }

    pub fn is_of(&self, spec: &ImageSpec) -> bool {
        self.spec == *spec && self.snapshot == "-"
    }
}

/// The mappings of the image. Without a cluster, any cluster's image of that name.
pub(crate) fn devices_of(
    spec: &ImageSpec,
    cluster: Option<&ClusterIdentity>,
) -> Result<Vec<KrbdDevice>, Error> {
    let is_meant = |d: &KrbdDevice| d.is_of(spec) && cluster.is_none_or(|cluster| d.cluster.is(cluster));
    Ok(devices()?.into_iter().filter(is_meant).collect())
}

/// True where the kernel can map images, after loading its module if there is one.
pub(crate) fn available() -> bool {
    let there = || Path::new(BUS).join("add").exists();
    // A missing modprobe is the same answer as a missing module.
    there() || (tool::run("modprobe", &["rbd"]).is_ok() && there())
}

/// All images mapped on this machine.
pub(crate) fn devices() -> Result<Vec<KrbdDevice>, Error> {
    let directory = Path::new(BUS).join("devices");
    match std::fs::read_dir(&directory) {
        Ok(entries) => Ok(entries
            .filter_map(Result::ok)
            .filter_map(|e| observe(&e.path(), Path::new("/sys/block")))
            .collect()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e).doing(|| format!("list {}", directory.display())),
    }
}

fn observe(entry: &Path, blocks: &Path) -> Option<KrbdDevice> {
    let id = entry.file_name()?.to_str()?.parse().ok()?;
    let read =
        |name: &str| Some(std::fs::read_to_string(entry.join(name)).ok()?.trim_end_matches('\n').to_owned());
    let block = |name: &str| std::fs::read_to_string(blocks.join(format!("rbd{id}")).join(name)).ok();
    let spec = ImageSpec {
        pool: read("pool")?,
        namespace: read("pool_ns").unwrap_or_default(),
        image: read("name")?,
    };
    let config = read("config_info").unwrap_or_default();
    let mut words = config.split(' ');
    // What was written to map it: `<monitors> <options> ...`.
    let (monitors, options) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    Some(KrbdDevice {
        id,
        spec,
        snapshot: read("current_snap")?,
        device: mountinfo::parse_device(&block("dev")?)?,
        read_only: block("ro")?.trim() == "1",
        own_client: options.split(',').any(|option| option == NO_SHARE),
        cluster: ClusterIdentity {
            fsid: read("cluster_fsid").map(|fsid| fsid.to_lowercase()),
            monitors: if monitors.is_empty() { Vec::new() } else { cephconf::endpoints(monitors) },
            conf: None,
        },
    })
}

/// Maps the image, which is not mapped here.
pub(crate) fn attach(
    spec: &ImageSpec,
    how: How,
    ceph: &ConnectOptions,
    cluster: Option<&ClusterIdentity>,
) -> Result<KrbdDevice, Error> {
    if !available() {
        return Err(Error::NoKrbd);
    }
    let find = || Ok::<_, Error>(devices_of(spec, cluster)?.into_iter().next());
    let command = map_command(spec, how, &ceph.user, &cephconf::access(ceph)?);
    match write_bus("add", &command) {
        Ok(()) => {}
        Err(Errno::NOENT) => return Err(Error::ImageNotFound { spec: spec.to_string() }),
        // This is what it says when all numbers of its devices, or all of the kernel's majors, are used up.
        Err(e @ (Errno::NOMEM | Errno::NOSPC)) => return Err(Error::NoFreeRbd { detail: e.to_string() }),
        Err(e @ Errno::BUSY) if no_major_is_free() => {
            return Err(Error::NoFreeRbd { detail: format!("{e}: no block major is free") });
        }
        // Another client holds the image's exclusive lock.
        Err(Errno::ROFS | Errno::BUSY) if !how.read_only => {
            return Err(Error::Busy {
                what: spec.to_string(),
                because: "it has another writer; close it there first",
                holders: Vec::new(),
            });
        }
        Err(e) => return Err(e).doing(|| format!("map {spec} in the kernel (its log, dmesg, says more)")),
    }
    let device = find()?.ok_or(Errno::NODEV).doing(|| format!("find the device of {spec}, just mapped"))?;
    let path = device.path();
    devnode::ensure(&path, device.device).doing(|| format!("make {}", path.display()))?;
    Ok(device)
}

/// Without `single_major` each mapped image takes a block major of its own.
fn no_major_is_free() -> bool {
    let single_major = Path::new(BUS).join("add_single_major").exists();
    !single_major
        && std::fs::read_to_string("/proc/devices").is_ok_and(|devices| majors_are_used_up(&devices))
}

/// From `/proc/devices`. The kernel gives out those from 1 to 254, and keeps them by their rest to 255.
fn majors_are_used_up(devices: &str) -> bool {
    let blocks = devices.lines().skip_while(|line| *line != "Block devices:").skip(1);
    let majors = blocks.filter_map(|line| line.split_whitespace().next()?.parse::<u32>().ok());
    let used: BTreeSet<u32> = majors.map(|major| major % MAJORS).collect();
    (1..MAJORS).all(|major| used.contains(&major))
}

/// What is written to `add_single_major`: `<monitors> <options> <pool> <image> <snapshot>`.
fn map_command(spec: &ImageSpec, how: How, user: &str, access: &Access) -> String {
    let mut options = vec![format!("name={user}")];
    options.extend(access.secret.iter().map(|secret| format!("secret={secret}")));
    if access.messenger_v2 {
        options.push("ms_mode=prefer-crc".to_owned());
    }
    if !spec.namespace.is_empty() {
        options.push(format!("_pool_ns={}", spec.namespace));
    }
    if how.own_client {
        options.push(NO_SHARE.to_owned());
    }
    if !how.read_only {
        // A full pool is an error, as a full disk is: a write that waited for space would hold up its unmount, too.
        options.push("abort_on_full".to_owned());
    }
    // A writer holds the image's lock for as long as it is mapped: a second writer is refused, not taken turns with.
    options.push(if how.read_only { "ro" } else { "exclusive" }.to_owned());
    format!("{} {} {} {} -", access.monitors, options.join(","), spec.pool, spec.image)
}

/// Unmaps the image. One that isn't mapped any more is fine.
pub(crate) fn detach(device: &KrbdDevice) -> Result<(), Error> {
    let deadline = Instant::now() + UNMAP_PATIENCE;
    while devices()?.iter().any(|d| d.id == device.id && d.spec == device.spec) {
        match write_bus("remove", &device.id.to_string()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            Err(Errno::BUSY) => {
                let path = device.path();
                return Err(Error::Busy {
                    holders: holders::of_device(&path),
                    because: HELD_UNSEEN,
                    what: path.display().to_string(),
                });
            }
            Err(e) => return Err(e).doing(|| format!("unmap {} ({})", device.path().display(), device.spec)),
        }
    }
    Ok(())
}

/// Writes to `<verb>_single_major`, or to `<verb>` where the module was loaded without it.
fn write_bus(verb: &str, command: &str) -> Result<(), Errno> {
    let errno = |e: std::io::Error| Errno::from_io_error(&e).unwrap_or(Errno::IO);
    let single = Path::new(BUS).join(format!("{verb}_single_major"));
    let path = if single.exists() { single } else { Path::new(BUS).join(verb) };
    let mut file = OpenOptions::new().write(true).open(path).map_err(errno)?;
    file.write_all(command.as_bytes()).map_err(errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(secret: Option<&str>, messenger_v2: bool) -> Access {
        Access { monitors: "10.0.0.1:6789".into(), messenger_v2, secret: secret.map(str::to_owned) }
    }

    #[test]
    fn the_map_command_is_what_the_kernel_parses() {
        let spec = ImageSpec::new("aldaas", "clone", "csi-1");
        assert_eq!(
            map_command(&spec, How::writable(), "admin", &access(Some("c2Vj"), false)),
            "10.0.0.1:6789 name=admin,secret=c2Vj,_pool_ns=clone,abort_on_full,exclusive aldaas csi-1 -"
        );
        let plain = ImageSpec::new("rbd", "", "x");
        assert_eq!(
            map_command(&plain, How { read_only: true, own_client: true }, "node", &access(None, true)),
            "10.0.0.1:6789 name=node,ms_mode=prefer-crc,noshare,ro rbd x -"
        );
    }

    #[test]
    fn majors_are_used_up_when_the_kernel_has_none_to_give() {
        let devices = |majors: &mut dyn Iterator<Item = u32>| {
            let blocks: String = majors.map(|major| format!("{major:3} rbd\n")).collect();
            format!("Character devices:\n  1 mem\n 5 /dev/tty\n\nBlock devices:\n{blocks}")
        };
        assert!(!majors_are_used_up(&devices(&mut [7, 259].into_iter())));
        assert!(majors_are_used_up(&devices(&mut (1..255))));
        assert!(
            !majors_are_used_up(&devices(&mut (1..255).filter(|major| *major != 5))),
            "a terminal is none"
        );
        // 259 is where 4 would be.
        assert!(majors_are_used_up(&devices(&mut (1..255).filter(|major| *major != 4).chain([259]))));
    }

    #[test]
    fn a_device_is_read_from_sysfs_with_and_without_a_rados_namespace() {
        let dir = tempfile::tempdir().unwrap();
        let (bus, blocks) = (dir.path().join("3"), dir.path().join("block"));
        std::fs::create_dir_all(&bus).unwrap();
        std::fs::create_dir_all(blocks.join("rbd3")).unwrap();
        let files = [("pool", "p\n"), ("pool_ns", "golden\n"), ("name", "i\n"), ("current_snap", "-\n")];
        files.iter().for_each(|(name, text)| std::fs::write(bus.join(name), text).unwrap());
        assert_eq!(observe(&bus, &blocks), None);
        std::fs::write(blocks.join("rbd3/dev"), "252:48\n").unwrap();
        std::fs::write(blocks.join("rbd3/ro"), "1\n").unwrap();
        let device = observe(&bus, &blocks).unwrap();
        assert_eq!((device.id, device.device, device.read_only), (3, (252, 48), true));
        assert!(!device.own_client && device.is_of(&ImageSpec::new("p", "golden", "i")));
        assert!(!device.is_of(&ImageSpec::new("p", "", "i")));
        assert_eq!(device.path(), Path::new("/dev/rbd3"));
        std::fs::write(bus.join("config_info"), "10.0.0.1:6789 name=admin,secret=<hidden> p i -\n").unwrap();
        std::fs::write(
            bus.join("config_info"),
            "10.0.0.1:6789 name=admin,secret=<hidden>,noshare,exclusive p i -\n",
        )
        .unwrap();
        assert!(observe(&bus, &blocks).unwrap().own_client);
        let meant = |fsid: Option<&str>, monitor: &str| {
            let fsid = fsid.map(str::to_owned);
            let cluster = ClusterIdentity { fsid, monitors: vec![monitor.to_owned()], conf: None };
            observe(&bus, &blocks).unwrap().cluster.is(&cluster)
        };
        assert!(meant(Some("a"), "10.0.0.1:6789") && !meant(Some("a"), "10.0.0.2:6789"));
        std::fs::write(bus.join("cluster_fsid"), "a\n").unwrap();
        assert!(meant(Some("a"), "10.0.0.2:6789") && !meant(Some("b"), "10.0.0.1:6789"));
        assert!(meant(None, "10.0.0.1:6789") && !meant(None, "10.0.0.2:6789"));
    }
}
