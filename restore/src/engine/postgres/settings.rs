//! How the server is started: everything is said on its command line, so that a clone's files need not change for it.

use std::path::Path;

use super::super::{Mode, Place};

/// Bytes of memory to count on where the machine does not tell.
const SOME_MEMORY: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// The settings for `mode`, as `name=value`, that the user's may override.
pub(super) fn tuning(mode: &Mode, place: &Place) -> Vec<String> {
    let mut settings = vec![
        "log_min_messages=warning".into(),
        // Trying for huge pages first costs time, and a clone is small fry.
        "huge_pages=off".into(),
        // After a crash: one call for the whole volume instead of opening every file.
        "recovery_init_sync_method=syncfs".into(),
    ];
    match mode {
        Mode::Load => settings.extend(load(place)),
        Mode::Serve { fsync: false, .. } => {
            settings.extend(["fsync=off".into(), "full_page_writes=off".into()]);
        }
        Mode::Check | Mode::Serve { .. } => {}
    }
    settings
}

/// Those that nobody overrides: how we and nobody else find it, and where it says why it ended.
pub(super) fn fixed(mode: &Mode, place: &Place, port: u16) -> Vec<String> {
    let mut settings = vec![
        format!("unix_socket_directories={}", place.work.display()),
        format!("port={port}"),
        // Who else is on this machine has no business with the socket.
        "unix_socket_permissions=0700".into(),
        "log_destination=stderr".into(),
        "logging_collector=off".into(),
    ];
    match mode {
        // A backend that is killed takes the server with it: that restore is over.
        Mode::Load => settings.extend(private().chain(["restart_after_crash=off".into()])),
        Mode::Check => settings.extend(private()),
        Mode::Serve { listen, .. } => settings.push(format!("listen_addresses={listen}")),
    }
    settings
}

/// Nobody but us connects, and nothing writes but what we ask for.
fn private() -> impl Iterator<Item = String> {
    ["listen_addresses=", "autovacuum=off"].into_iter().map(str::to_owned)
}

/// The data directory is thrown away when anything goes wrong, so nothing needs to survive a crash.
fn load(place: &Place) -> Vec<String> {
    let memory = memory();
    let maintenance = (memory / 16).clamp(64 * MIB, 1024 * MIB) / MIB;
    let buffers = (memory / 8).clamp(128 * MIB, 1024 * MIB) / MIB;
    // On the volume itself, so it must stay small beside the data.
    let wal = (free(&place.data) / 10).clamp(64 * MIB, 4096 * MIB) / MIB;
    vec![
        // Not synchronous_commit=off: with it, rows committed a moment ago cannot be frozen, and it saves nothing here.
        "fsync=off".into(),
        "full_page_writes=off".into(),
        "wal_level=minimal".into(),
        "max_wal_senders=0".into(),
        "archive_mode=off".into(),
        "max_connections=40".into(),
        "checkpoint_timeout=1h".into(),
        "wal_buffers=16MB".into(),
        // Old WAL is removed, not kept for later: the golden image should hold none.
        "wal_recycle=off".into(),
        "min_wal_size=32MB".into(),
        format!("max_wal_size={wal}MB"),
        format!("maintenance_work_mem={maintenance}MB"),
        format!("shared_buffers={buffers}MB"),
        "jit=off".into(),
    ]
}

/// What this machine, or this container, has.
fn memory() -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
    });
    // Of both versions of control groups.
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let container = limits.iter().find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok());
    machine.unwrap_or(SOME_MEMORY).min(container.unwrap_or(u64::MAX))
}

/// Free bytes of the file system that holds `path`.
fn free(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(SOME_MEMORY, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            data: "/".into(),
            work: "/w".into(),
            database: "orders".into(),
            extra: crate::engine::Extra::default(),
        }
    }

    #[test]
    fn while_a_dump_is_loaded_or_looked_at_nobody_else_can_connect() {
        let place = place();
        let serve = Mode::Serve { listen: "127.0.0.1".into(), port: 1, fsync: true };
        for mode in [Mode::Load, Mode::Check, serve] {
            let settings = fixed(&mode, &place, 5432);
            let is_private = settings.contains(&"listen_addresses=".to_owned());
            assert_eq!(is_private, matches!(mode, Mode::Load | Mode::Check), "{settings:?}");
            assert!(settings.contains(&"unix_socket_permissions=0700".to_owned()), "{settings:?}");
        }
    }

    #[test]
    fn only_a_clone_that_is_thrown_away_is_served_without_fsync() {
        let place = place();
        for fsync in [true, false] {
            let mode = Mode::Serve { listen: "127.0.0.1".into(), port: 1, fsync };
            assert_eq!(tuning(&mode, &place).contains(&"fsync=off".to_owned()), !fsync);
        }
    }
}
