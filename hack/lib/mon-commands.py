"""Sends monitor commands, one JSON object per line of stdin, over one connection.

The ceph command line tool pays for an interpreter and a connection each time; a cluster's
set-up is a dozen commands. Stops at the first that fails. Prints what the last one answered.

Usage: mon-commands.py CEPH_CONF [TIMEOUT_SECONDS]
"""

import json
import sys

import rados


def main() -> int:
    conf = sys.argv[1]
    timeout = int(sys.argv[2]) if len(sys.argv) > 2 else 30
    options = {"client_mount_timeout": str(timeout), "rados_mon_op_timeout": str(timeout)}
    cluster = rados.Rados(conffile=conf, conf=options)
    cluster.connect(timeout=timeout)
    answer = b""
    try:
        for line in sys.stdin:
            if not line.strip():
                continue
            command = json.loads(line)
            stdin = command.pop("stdin", "").encode()
            code, answer, status = cluster.mon_command(json.dumps(command), stdin, timeout=timeout)
            if code:
                print(f"monitor refused {line.strip()}: {status} ({code})", file=sys.stderr)
                return 1
    finally:
        cluster.shutdown()
    sys.stdout.write(answer.decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
