//! A connection to a cluster: configuration, time-outs, commands to the monitors, pools, blocklist.

use std::ffi::c_char;
use std::path::PathBuf;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::admin_socket;
use crate::callback;
use crate::error::{Error, Result, check};
use crate::ffi::{self, cstring, rados};
use crate::names::PoolName;
use crate::pool::Pool;

/// How to reach a cluster, and how long to wait for it.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// `ceph.conf`; without one Ceph looks in its usual places (`$CEPH_CONF`, `/etc/ceph/ceph.conf`, …).
    pub conf: Option<PathBuf>,
    /// The client's name without `client.`.
    pub user: String,
    /// The keyring with the client's key; without one what `ceph.conf` says holds.
    pub keyring: Option<PathBuf>,
    /// How long [`Cluster::connect`] may take. Rounded up to whole seconds; zero waits forever.
    pub connect_timeout: Duration,
    /// How long one request to a monitor or an OSD may take before it fails with `ETIMEDOUT`. Rounded up to whole
    /// seconds. Zero waits forever: right for whoever serves I/O to a mounted file system, where an error does more
    /// harm than a wait. A write that timed out may still happen once the cluster is back: look before you repeat it.
    pub operation_timeout: Duration,
    /// Further configuration options of Ceph, set last: they win.
    pub overrides: Vec<(String, String)>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            conf: None,
            user: "admin".into(),
            keyring: None,
            connect_timeout: Duration::from_secs(10),
            operation_timeout: Duration::from_secs(30),
            overrides: Vec::new(),
        }
    }
}

impl ConnectOptions {
    /// The configuration to set before connecting, in order.
    fn settings(&self) -> Vec<(String, String)> {
        let seconds = |time: Duration| (time.as_secs() + u64::from(time.subsec_nanos() > 0)).to_string();
        let mut settings = vec![
            // What goes wrong is in our errors. Ceph's own words go to its log file, not into a user's terminal.
            ("err_to_stderr".to_owned(), "false".to_owned()),
            ("client_mount_timeout".to_owned(), seconds(self.connect_timeout)),
            ("rados_mon_op_timeout".to_owned(), seconds(self.operation_timeout)),
            ("rados_osd_op_timeout".to_owned(), seconds(self.operation_timeout)),
            // librbd wakes who opened an image before it is done with the image's state: where another thread could close the
            // image meanwhile, the first would find itself in freed memory (`ImageState::complete_action_unlock`). With one
            // thread for all that completes, the close comes after it.
            ("librados_thread_count".to_owned(), "1".to_owned()),
            // librbd raises the one above to this one.
            ("rbd_op_threads".to_owned(), "1".to_owned()),
        ];
        if let Some(keyring) = &self.keyring {
            settings.push(("keyring".to_owned(), keyring.display().to_string()));
        }
        settings.extend(self.overrides.iter().cloned());
        settings
    }
}

/// A connection to a cluster. Cheap to clone; the last clone, pool, namespace or image to go disconnects.
#[derive(Clone)]
pub struct Cluster {
    connection: Arc<Connection>,
}

/// The raw handle. Dropping it shuts the connection down.
struct Connection {
    handle: Handle,
    fsid: String,
    user: String,
}

struct Handle(rados::rados_t);

// SAFETY: librados documents its cluster handle as usable from several threads at once; it has no thread affinity.
unsafe impl Send for Handle {}
// SAFETY: as above; every call through a shared reference is one of those.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        let raw = Shutdown(self.0);
        // `rados_shutdown` joins Ceph's threads, so it can't run on one of them.
        callback::release(move || raw.run());
    }
}

struct Shutdown(rados::rados_t);

// SAFETY: the handle may be shut down by any thread, see `Handle`.
unsafe impl Send for Shutdown {}

impl Shutdown {
    fn run(self) {
        // SAFETY: the handle came from `rados_create`, whatever was made from it held an `Arc` to it, and this is
        // the only call that frees it. Shutting down a handle that never connected is allowed.
        unsafe { rados::rados_shutdown(self.0) }
    }
}

impl Cluster {
    /// Connects, or says within `connect_timeout` that the cluster is away.
    ///
    /// Implements: `rados_create`, `rados_conf_read_file`, `rados_conf_set`, `rados_connect`, `rados_cluster_fsid`.
    pub fn connect(options: &ConnectOptions) -> Result<Self> {
        const CONNECT: &str = "connect to cluster as";
        let target = || format!("client.{}", options.user);
        let user = cstring(&options.user, CONNECT)?;
        let mut raw = ptr::null_mut();
        // SAFETY: `raw` is written on success only; `user` lives through the call.
        check(unsafe { rados::rados_create(&mut raw, user.as_ptr()) }, CONNECT, target)?;
        // From here on dropping `handle` frees it, whatever fails.
        let handle = Handle(raw);
        read_conf(&handle, options)?;
        for (option, value) in options.settings() {
            let key = cstring(&option, CONNECT)?;
            let text = cstring(&value, CONNECT)?;
            // SAFETY: the handle is live and not connected yet; both strings live through the call.
            let code = unsafe { rados::rados_conf_set(handle.0, key.as_ptr(), text.as_ptr()) };
            check(code, CONNECT, target).map_err(|e| e.because(refused(&option, &value)))?;
        }
        // SAFETY: the handle is live and not connected yet.
        check(unsafe { rados::rados_connect(handle.0) }, CONNECT, target).map_err(explain_connect)?;
        let mut fsid = [0 as c_char; 37];
        // SAFETY: the buffer has the length that is passed: 36 characters and a NUL.
        let code = unsafe { rados::rados_cluster_fsid(handle.0, fsid.as_mut_ptr(), fsid.len()) };
        check(code, CONNECT, target)?;
        // SAFETY: librados ended the text with a NUL within the buffer.
        let fsid = unsafe { ffi::owned(fsid.as_ptr()) };
        Ok(Self { connection: Arc::new(Connection { handle, fsid, user: options.user.clone() }) })
    }

    pub(crate) fn raw(&self) -> rados::rados_t {
        self.connection.handle.0
    }

    /// The cluster's id, a UUID.
    pub fn fsid(&self) -> &str {
        &self.connection.fsid
    }

    /// The client's name without `client.`.
    pub fn user(&self) -> &str {
        &self.connection.user
    }

    /// This connection's number: the one that watchers and lockers of it show as `client.<id>`.
    ///
    /// Implements: `rados_get_instance_id`.
    pub fn instance_id(&self) -> u64 {
        // SAFETY: the handle is live and connected.
        unsafe { rados::rados_get_instance_id(self.raw()) }
    }

    /// This connection's addresses, e.g. `10.0.0.1:0/3210`: what to hand to [`Cluster::blocklist_add`].
    ///
    /// Implements: `rados_getaddrs`.
    pub fn addresses(&self) -> Result<Vec<String>> {
        let mut text: *mut c_char = ptr::null_mut();
        // SAFETY: the handle is live; librados writes a string of its own into `text`.
        let code = unsafe { rados::rados_getaddrs(self.raw(), &mut text) };
        check(code, "read addresses of", || self.to_string())?;
        // SAFETY: `text` is a NUL-terminated string, ours to free.
        let addresses = unsafe {
            let addresses = ffi::owned(text);
            rados::rados_buffer_free(text);
            addresses
        };
        Ok(plain_addresses(&addresses))
    }

    /// Sends one command to the monitors and returns what it printed, e.g. `{"prefix": "df", "format": "json"}`.
    ///
    /// Implements: `rados_mon_command`.
    pub fn mon_command(&self, command: &Value) -> Result<Vec<u8>> {
        const COMMAND: &str = "send monitor command";
        let name = || command["prefix"].as_str().unwrap_or("?").to_owned();
        let text = cstring(&command.to_string(), COMMAND)?;
        let mut commands = [text.as_ptr()];
        let (mut out, mut out_len) = (ptr::null_mut(), 0);
        let (mut status, mut status_len) = (ptr::null_mut(), 0);
        // SAFETY: one command that lives through the call, no input; the four out parameters belong to us.
        let code = unsafe {
            rados::rados_mon_command(
                self.raw(),
                commands.as_mut_ptr(),
                commands.len(),
                ptr::null(),
                0,
                &mut out,
                &mut out_len,
                &mut status,
                &mut status_len,
            )
        };
        // SAFETY: librados allocated both (or left them null); they are taken once.
        let (out, status) =
            unsafe { (ffi::take_rados_buffer(out, out_len), ffi::take_rados_buffer(status, status_len)) };
        check(code, COMMAND, name).map_err(|e| e.because(String::from_utf8_lossy(&status)))?;
        Ok(out)
    }

    /// The same, with the answer parsed: `format: json` is added.
    pub fn mon_command_json(&self, command: &Value) -> Result<Value> {
        let mut command = command.clone();
        command["format"] = json!("json");
        let answer = self.mon_command(&command)?;
        serde_json::from_slice(&answer).map_err(|error| {
            Error::new("read answer to monitor command", command["prefix"].to_string(), libc::EBADMSG)
                .because(error.to_string())
        })
    }

    /// The names of all pools.
    ///
    /// Implements: `rados_pool_list`.
    pub fn pools(&self) -> Result<Vec<String>> {
        let names = ffi::grow(0, 1024, |buffer: *mut c_char, len| {
            let capacity = *len;
            // SAFETY: the buffer has `capacity` bytes.
            let needed = unsafe { rados::rados_pool_list(self.raw(), buffer, capacity) };
            *len = usize::try_from(needed).unwrap_or(0);
            if *len > capacity { -libc::ERANGE } else { needed }
        });
        names
            .map(|names| ffi::split_nul(&names))
            .map_err(|code| Error::new("list pools of", self.to_string(), code))
    }

    /// Opens a pool.
    pub fn pool(&self, name: &PoolName) -> Result<Pool> {
        Pool::open(self, name)
    }

    /// Makes a pool with `pg_num` placement groups (or as many as the cluster thinks fit).
    ///
    /// An existing pool is an error that [`Error::is_exists`] knows; [`Pool::ensure_initialised`] makes it one for RBD.
    pub fn create_pool(&self, name: &PoolName, pg_num: Option<u32>) -> Result<()> {
        if self.pools()?.iter().any(|pool| pool == name.as_str()) {
            return Err(Error::new("create pool", name.as_str(), libc::EEXIST));
        }
        let mut command = json!({"prefix": "osd pool create", "pool": name.as_str()});
        if let Some(pg_num) = pg_num {
            command["pg_num"] = json!(pg_num);
        }
        self.mon_command(&command)?;
        self.wait_for_latest_map()
    }

    /// Deletes a pool with all it holds. The monitors must allow it (`mon_allow_pool_delete`).
    ///
    /// Implements: `rados_pool_delete`.
    pub fn delete_pool(&self, name: &PoolName) -> Result<()> {
        let text = cstring(name.as_str(), "delete pool")?;
        // SAFETY: the handle is live, the name lives through the call.
        let code = unsafe { rados::rados_pool_delete(self.raw(), text.as_ptr()) };
        check(code, "delete pool", || name.to_string()).map(drop)
    }

    /// Waits until this client knows the newest map of the OSDs.
    ///
    /// Implements: `rados_wait_for_latest_osdmap`.
    pub fn wait_for_latest_map(&self) -> Result<()> {
        // SAFETY: the handle is live and connected.
        let code = unsafe { rados::rados_wait_for_latest_osdmap(self.raw()) };
        check(code, "wait for latest map of", || self.to_string()).map(drop)
    }

    /// Cuts a client off until `expire` is over: no OSD that has heard of it serves a request of that client.
    ///
    /// An OSD hears of it at the latest with this connection's next request to it. So whatever this connection reads
    /// afterwards, the other can't change any more.
    ///
    /// Implements: monitor command `osd blocklist add`.
    pub fn blocklist_add(&self, address: &str, expire: Duration) -> Result<()> {
        self.mon_command(&json!({
            "prefix": "osd blocklist", "blocklistop": "add", "addr": address, "expire": expire.as_secs_f64(),
        }))?;
        self.wait_for_latest_map()
    }

    /// Lets a client back in. Unknown addresses are fine.
    ///
    /// Implements: monitor command `osd blocklist rm`.
    pub fn blocklist_remove(&self, address: &str) -> Result<()> {
        self.mon_command(&json!({"prefix": "osd blocklist", "blocklistop": "rm", "addr": address}))?;
        self.wait_for_latest_map()
    }

    /// The addresses that are cut off now.
    ///
    /// Implements: monitor command `osd blocklist ls`.
    pub fn blocklist(&self) -> Result<Vec<String>> {
        let answer = self.mon_command(&json!({"prefix": "osd blocklist ls", "format": "json"}))?;
        // Addresses, then ranges of them: two arrays, one after the other.
        let lists = serde_json::Deserializer::from_slice(&answer)
            .into_iter::<Vec<Value>>()
            .collect::<std::result::Result<Vec<_>, _>>();
        let lists = lists.map_err(|error| {
            Error::new("read blocklist of", self.to_string(), libc::EBADMSG).because(error.to_string())
        })?;
        Ok(lists.iter().flatten().filter_map(|entry| entry["addr"].as_str()).map(str::to_owned).collect())
    }

    /// The value of a configuration option as this client sees it.
    ///
    /// Implements: `rados_conf_get`.
    pub fn config(&self, option: &str) -> Result<String> {
        let key = cstring(option, "read configuration option")?;
        let mut capacity = 256;
        loop {
            let mut buffer = vec![0 as c_char; capacity];
            // SAFETY: the buffer has the length that is passed, the key lives through the call.
            let code =
                unsafe { rados::rados_conf_get(self.raw(), key.as_ptr(), buffer.as_mut_ptr(), buffer.len()) };
            if code == -libc::ENAMETOOLONG && capacity < 1 << 20 {
                capacity *= 4;
                continue;
            }
            check(code, "read configuration option", || option.to_owned())?;
            // SAFETY: librados ended the text with a NUL within the buffer.
            return Ok(unsafe { ffi::owned(buffer.as_ptr()) });
        }
    }

    /// How many operations this connection has sent to OSDs so far, from its own counters.
    ///
    /// Two readings around a call tell what it costs the cluster: a figure that, unlike time, doesn't depend on the
    /// machine. Needs an admin socket: option `admin_socket` in the configuration or [`ConnectOptions::overrides`], with
    /// `$pid` and `$cctid` in its name.
    pub fn objecter_ops(&self) -> Result<u64> {
        const COUNT: &str = "count operations of";
        let socket = self.config("admin_socket")?;
        if socket.is_empty() {
            return Err(Error::invalid(
                COUNT,
                self.to_string(),
                "set the option `admin_socket` before connecting",
            ));
        }
        let command = json!({"prefix": "perf dump", "logger": "objecter"});
        let counters = admin_socket::ask(socket.as_ref(), &command).map_err(|error| {
            Error::new(COUNT, self.to_string(), error.raw_os_error().unwrap_or(libc::EIO))
                .because(format!("admin socket {socket}: {error}"))
        })?;
        counters["objecter"]["op"].as_u64().ok_or_else(|| {
            Error::new(COUNT, self.to_string(), libc::EBADMSG).because("no counter objecter.op")
        })
    }
}

impl std::fmt::Display for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "client.{}@{}", self.connection.user, self.connection.fsid)
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cluster({self})")
    }
}

/// `[v2:10.0.0.1:0/1,v1:10.0.0.1:0/1]` without brackets, protocols and repetitions.
fn plain_addresses(text: &str) -> Vec<String> {
    let mut plain: Vec<String> = text
        .trim_matches(['[', ']'])
        .split(',')
        .map(|address| {
            address.trim_start_matches("v1:").trim_start_matches("v2:").trim_start_matches("any:").to_owned()
        })
        .filter(|address| !address.is_empty())
        .collect();
    plain.dedup();
    plain
}

fn read_conf(handle: &Handle, options: &ConnectOptions) -> Result<()> {
    const READ: &str = "read Ceph configuration";
    let name =
        || options.conf.as_ref().map_or("in its usual places".to_owned(), |path| path.display().to_string());
    let path = options.conf.as_ref().map(|path| cstring(&path.display().to_string(), READ)).transpose()?;
    let raw = path.as_ref().map_or(ptr::null(), |path| path.as_ptr());
    // SAFETY: the handle is live and not connected yet; null means the usual places.
    let code = unsafe { rados::rados_conf_read_file(handle.0, raw) };
    check(code, READ, name)
        .map_err(|e| e.because("give the path of a readable ceph.conf that names the monitors"))
        .map(drop)
}

/// What Ceph refused. Never a key: what comes as one may be, even where it can't be used.
fn refused(option: &str, value: &str) -> String {
    if option.to_lowercase().contains("key") {
        format!("Ceph refused the value (not shown) of the configuration option {option}")
    } else {
        format!("Ceph refused the configuration option {option} = {value:?}")
    }
}

fn explain_connect(error: Error) -> Error {
    match error.errno {
        libc::ENOENT => {
            error.because("no keyring with a key for this client was found, or no monitor is configured")
        }
        libc::ETIMEDOUT => error.because("no monitor answered in time"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_outs_are_whole_seconds_and_never_rounded_down_to_forever() {
        let options = ConnectOptions {
            connect_timeout: Duration::from_millis(1),
            operation_timeout: Duration::from_millis(2500),
            overrides: vec![("rados_mon_op_timeout".into(), "7".into())],
            ..Default::default()
        };
        let settings = options.settings();
        assert!(settings.contains(&("client_mount_timeout".into(), "1".into())));
        assert!(settings.contains(&("rados_osd_op_timeout".into(), "3".into())));
        assert_eq!(settings.last().unwrap().1, "7", "overrides come last");
    }

    #[test]
    fn a_refused_key_is_not_shown() {
        assert!(!refused("Key", "c2VjcmV0").contains("c2VjcmV0"));
        assert!(refused("rbd_cache", "perhaps").contains("perhaps"));
    }

    #[test]
    fn addresses_are_plain_whatever_the_protocol() {
        assert_eq!(plain_addresses("10.0.0.1:0/7"), ["10.0.0.1:0/7"]);
        assert_eq!(plain_addresses("[v2:10.0.0.1:0/7,v1:10.0.0.1:0/7]"), ["10.0.0.1:0/7"]);
        assert_eq!(plain_addresses("v2:[fd00::1]:0/7"), ["[fd00::1]:0/7"]);
        assert!(plain_addresses("").is_empty());
    }
}
