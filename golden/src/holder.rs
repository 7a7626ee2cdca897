//! Who holds something: a process, named so that others can tell whether it still lives.

use std::fmt;
use std::fs;
use std::str::FromStr;

/// A process on some machine. Whether it still lives can be told only where its process id means something; from
/// anywhere else it counts as alive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// The machine's host name, for people.
    pub host: String,
    /// The process id.
    pub pid: u32,
    /// When that process started, in clock ticks since boot: process ids are used again.
    start: u64,
    /// Boot and process namespace: where the process id means something.
    scope: String,
}

impl Holder {
    /// The process that asks.
    pub fn this_process() -> Self {
        Self::of_process(std::process::id()).unwrap_or_else(|| Self::with_start(std::process::id(), 0))
    }

    /// Another process of this machine, if it lives.
    pub fn of_process(pid: u32) -> Option<Self> {
        Some(Self::with_start(pid, start_time(pid)?))
    }

    fn with_start(pid: u32, start: u64) -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { host, pid, start, scope: scope() }
    }

    /// Whether the process has certainly ended.
    pub fn is_dead(&self) -> bool {
        self.scope == scope() && start_time(self.pid) != Some(self.start)
    }
}

/// `<boot id>.<pid namespace>`
fn scope() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let number: String = namespace.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
    format!("{}.{number}", boot.trim())
}

/// Field 22 of `/proc/PID/stat`; none when there is no such process, or only its corpse.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in brackets and may itself hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    if matches!(fields.first(), Some(&"Z" | &"X")) {
        return None;
    }
    fields.get(19)?.parse().ok()
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}", self.pid, self.host)
    }
}

/// As it is kept in RBD: `host/pid/start/scope`.
impl Holder {
    /// One line that [`FromStr`] reads back.
    pub fn encode(&self) -> String {
        format!("{}/{}/{}/{}", self.host.replace('/', "_"), self.pid, self.start, self.scope)
    }
}

impl FromStr for Holder {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(4, '/');
        let mut next = || parts.next().ok_or(());
        let host = next()?.to_owned();
        let pid = next()?.parse().map_err(drop)?;
        let start = next()?.parse().map_err(drop)?;
        let scope = next()?.to_owned();
        Ok(Self { host, pid, start, scope })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_process_is_not_dead_and_an_ended_one_is() {
        let me = Holder::this_process();
        assert!(!me.is_dead());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let holder = Holder { pid: child.id(), start: start_time(child.id()).unwrap(), ..me };
        assert!(!holder.is_dead());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(holder.is_dead());
    }

    #[test]
    fn a_process_id_used_again_is_another_process() {
        let me = Holder::this_process();
        assert!(Holder { start: me.start + 1, ..me }.is_dead());
    }

    #[test]
    fn a_process_of_another_machine_counts_as_alive() {
        let me = Holder::this_process();
        assert!(!Holder { scope: "elsewhere.1".into(), pid: 4_000_000, ..me }.is_dead());
    }

    #[test]
    fn a_holder_reads_back_as_it_was_written() {
        let me = Holder::this_process();
        assert_eq!(me.encode().parse(), Ok(me));
        assert!("rubbish".parse::<Holder>().is_err());
    }
}
