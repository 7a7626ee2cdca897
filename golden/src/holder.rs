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
    /// Where the process id means something.
    scope: Scope,
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
        Self { host, pid, start, scope: Scope::here() }
    }

    /// Whether the process has certainly ended: it was one of this machine, and is gone, or the machine was started anew since.
    pub fn is_dead(&self) -> bool {
        let here = Scope::here();
        match (self.scope.machine == here.machine, self.scope.boot == here.boot) {
            (true, false) => !here.machine.is_empty(),
            (_, true) => self.scope.pids == here.pids && start_time(self.pid) != Some(self.start),
            (false, false) => false,
        }
    }

    /// Whether the process certainly lives, so that its process id may be used.
    pub fn is_alive_here(&self) -> bool {
        self.scope == Scope::here() && start_time(self.pid) == Some(self.start)
    }
}

/// Where and while a process id means something.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Scope {
    /// The machine, over all its starts.
    machine: String,
    /// This start of it.
    boot: String,
    /// The process namespace: containers have their own.
    pids: String,
}

impl Scope {
    fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        Self {
            machine: read("/etc/machine-id"),
            boot: read("/proc/sys/kernel/random/boot_id"),
            pids: namespace.to_string_lossy().chars().filter(char::is_ascii_digit).collect(),
        }
    }
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

/// As it is kept in RBD: `host/pid/start/machine/boot/pid namespace`.
impl Holder {
    /// One line that [`FromStr`] reads back.
    pub fn encode(&self) -> String {
        let Scope { machine, boot, pids } = &self.scope;
        format!("{}/{}/{}/{machine}/{boot}/{pids}", self.host.replace('/', "_"), self.pid, self.start)
    }
}

impl FromStr for Holder {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.trim().splitn(6, '/');
        let mut next = || parts.next().ok_or(());
        let host = next()?.to_owned();
        let pid = next()?.parse().map_err(drop)?;
        let start = next()?.parse().map_err(drop)?;
        let scope = Scope { machine: next()?.to_owned(), boot: next()?.to_owned(), pids: next()?.to_owned() };
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
        let elsewhere = Scope { machine: "another".into(), boot: "another".into(), ..Scope::here() };
        let holder = Holder { scope: elsewhere, pid: 4_000_000, ..me };
        assert!(!holder.is_dead() && !holder.is_alive_here());
    }

    #[test]
    fn a_process_of_another_container_counts_as_alive_but_is_never_signalled() {
        let me = Holder::this_process();
        let holder = Holder { scope: Scope { pids: "1".into(), ..Scope::here() }, ..me };
        assert!(!holder.is_dead() && !holder.is_alive_here());
    }

    #[test]
    fn a_process_from_before_the_machine_was_started_anew_is_dead() {
        let me = Holder::this_process();
        let holder = Holder { scope: Scope { boot: "before".into(), ..Scope::here() }, ..me };
        // A machine without an id can't be told from another.
        assert_eq!(holder.is_dead(), !Scope::here().machine.is_empty());
        assert!(!holder.is_alive_here());
    }

    #[test]
    fn a_holder_reads_back_as_it_was_written() {
        let me = Holder::this_process();
        assert_eq!(me.encode().parse(), Ok(me));
        assert!("rubbish".parse::<Holder>().is_err());
    }
}
