"""Asks a daemon of Ceph over its admin socket, as `ceph --admin-daemon` does in twenty times the time.

Usage: asok.py SOCKET COMMAND...
"""

import json
import socket
import struct
import sys


def main() -> int:
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.settimeout(5)
        daemon.connect(sys.argv[1])
        daemon.sendall(json.dumps({"prefix": " ".join(sys.argv[2:])}).encode() + b"\0")
        with daemon.makefile("rb") as said:
            (length,) = struct.unpack(">I", said.read(4))
            sys.stdout.write(said.read(length).decode())
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, struct.error) as error:
        sys.exit(f"{sys.argv[1]}: {error}")
