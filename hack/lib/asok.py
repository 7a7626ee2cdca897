"""Asks a daemon of Ceph over its admin socket, as `ceph --admin-daemon` does in twenty times the time, until it says what is
waited for. Ends with 1 where it does not in time, or the daemon has ended.

Usage: asok.py PID SECONDS SOCKET COMMAND KEY=VALUE
"""

import json
import socket
import struct
import sys
import time


def ask(path, command):
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.settimeout(5)
        daemon.connect(path)
        daemon.sendall(json.dumps({"prefix": command}).encode() + b"\0")
        with daemon.makefile("rb") as said:
            (length,) = struct.unpack(">I", said.read(4))
            return json.loads(said.read(length))


def lives(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            return stat.read().rpartition(") ")[2][:1] != "Z"
    except OSError:
        return False


def main() -> int:
    pid, seconds, path, command, wanted = sys.argv[1:]
    key, value = wanted.split("=")
    deadline = time.monotonic() + int(seconds)
    while time.monotonic() < deadline and lives(pid):
        try:
            if str(ask(path, command).get(key)) == value:
                return 0
        except (OSError, ValueError, struct.error):
            pass  # it does not listen yet
        time.sleep(0.02)
    return 1


if __name__ == "__main__":
    sys.exit(main())
