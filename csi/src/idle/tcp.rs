//! Established TCP connections to a port, in the network namespace of a process: `/proc/<pid>/net/tcp` and `tcp6`.

use std::io;
use std::path::Path;

/// `TCP_ESTABLISHED`, as the kernel writes it there.
const ESTABLISHED: &str = "01";

/// How many connections to `port` are established in the network namespace of the process.
///
/// # Errors
/// When its tables can't be read, e.g. because it has just ended.
pub fn connections(process: &Path, port: u16) -> io::Result<usize> {
    let four = std::fs::read_to_string(process.join("net/tcp"))?;
    // A kernel without IPv6 has no such table.
    let six = match std::fs::read_to_string(process.join("net/tcp6")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        other => other?,
    };
    Ok(count(&four, port) + count(&six, port))
}

/// Connections whose own end is the port: the engine's side of them. The client's side, where it is in the same namespace, is
/// not counted again.
fn count(table: &str, port: u16) -> usize {
    let is_one = |line: &&str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let local = fields.next().and_then(|address| address.rsplit_once(':'));
        let matches = local.is_some_and(|(_, hex)| u16::from_str_radix(hex, 16) == Ok(port));
        matches && fields.nth(1) == Some(ESTABLISHED)
    };
    table.lines().skip(1).filter(is_one).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    #[test]
    fn the_engines_side_of_established_connections_is_counted_once() {
        let table = format!(
            "{HEAD}   0: 00000000:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000  104 0 1 1\n   \
             1: 0100007F:1538 0100007F:C350 01 00000000:00000000 00:00000000 00000000  104 0 2 1\n   \
             2: 0100007F:C350 0100007F:1538 01 00000000:00000000 00:00000000 00000000    0 0 3 1\n   \
             3: 0100007F:1538 0100007F:C352 06 00000000:00000000 00:00000000 00000000    0 0 0 3\n"
        );
        assert_eq!(count(&table, 5432), 1);
        assert_eq!(count(&table, 5433), 0);
        let six = format!(
            "{HEAD}   0: 0000000000000000FFFF00000100007F:1538 0000000000000000FFFF00000100007F:C350 01 0:0 0:0 0 104 0 2 1\n"
        );
        assert_eq!(count(&six, 5432), 1);
    }

    #[test]
    fn a_connection_of_this_process_is_seen() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let here = Path::new("/proc/self");
        assert_eq!(connections(here, port).unwrap(), 0);
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (served, _) = listener.accept().unwrap();
        assert_eq!(connections(here, port).unwrap(), 1);
        drop((client, served));
        assert!(connections(Path::new("/proc/0"), port).is_err());
    }

    proptest! {
        #[test]
        fn any_table_is_read_without_panic(table in ".{0,300}", port: u16) {
            count(&table, port);
        }
    }
}
