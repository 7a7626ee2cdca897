"""Lends pools to tests and says what is in them, over one connection to the cluster for a whole run.

A test that asks the command line tools pays for an interpreter and a connection each time, which is more than what it
asks for. Answers on DIR/keeper.sock, one JSON object per line:

    {"lend": true}       -> {"pool": "test-7"}    the asker's own, ready for RBD, until it closes the connection
    {"census": "test-7"} -> what census.py prints
    what fails           -> {"error": "..."}

Ends at SIGTERM, without leaving a pool.

Usage: keeper.py CEPH_CONF DIR
"""

import concurrent.futures
import itertools
import json
import os
import queue
import signal
import socketserver
import sys
import threading

import rados
import rbd

import census

# So many are made, or removed, together: the monitor takes as long for them as for one.
TOGETHER = 8


class Pools:
    """Pools that are made before somebody asks, and removed after nobody waits for that any more."""

    def __init__(self, cluster: rados.Rados) -> None:
        self.cluster = cluster
        self.numbers = itertools.count()
        self.ready: queue.Queue = queue.Queue()
        self.returned: queue.Queue = queue.Queue()
        self.wanted = threading.Semaphore(TOGETHER)
        self.workers = concurrent.futures.ThreadPoolExecutor(TOGETHER)
        for loop in (self.make, self.remove):
            threading.Thread(target=loop, daemon=True).start()

    def command(self, **command) -> None:
        code, _, status = self.cluster.mon_command(json.dumps(command), b"", timeout=60)
        if code:
            raise RuntimeError(f"{command['prefix']}: {status} ({code})")

    def lend(self) -> str:
        made = self.ready.get(timeout=120)
        self.wanted.release()
        if isinstance(made, Exception):
            raise made
        return made

    def make(self) -> None:
        while True:
            self.wanted.acquire()
            self.workers.submit(self.make_one, f"test-{next(self.numbers)}")

    def make_one(self, name: str) -> None:
        try:
            self.command(prefix="osd pool create", pool=name, pg_num=1, pgp_num=1)
            with self.cluster.open_ioctx(name) as ioctx:
                rbd.RBD().pool_init(ioctx, False)
            self.ready.put(name)
        except Exception as error:  # whoever asks next is told
            self.ready.put(error)

    def remove(self) -> None:
        while True:
            self.workers.submit(self.remove_one, self.returned.get())

    def remove_one(self, name: str) -> None:
        try:
            self.command(prefix="osd pool delete", pool=name, pool2=name, yes_i_really_really_mean_it=True)
        except Exception as error:
            print(error, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Removes all of them, lent or not."""
        self.workers.shutdown(wait=True)
        for name in self.cluster.list_pools():
            if name.startswith("test-"):
                self.remove_one(name)


class Asker(socketserver.StreamRequestHandler):
    """One test's connection."""

    def handle(self) -> None:
        lent = []
        try:
            for line in self.rfile:
                self.wfile.write(json.dumps(self.answer(json.loads(line), lent)).encode() + b"\n")
        except ConnectionError:
            pass
        finally:
            for name in lent:
                self.server.pools.returned.put(name)

    def answer(self, asked: dict, lent: list) -> dict:
        try:
            if "census" in asked:
                return census.of_pool(self.server.pools.cluster, asked["census"])
            lent.append(self.server.pools.lend())
            return {"pool": lent[-1]}
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}


class Server(socketserver.ThreadingUnixStreamServer):
    """All connections."""

    daemon_threads = True
    request_queue_size = 64


def main() -> int:
    conf, directory = sys.argv[1:3]
    # librbd frees an image under the thread that opened it, where another one completes too.
    cluster = rados.Rados(conffile=conf, conf={"librados_thread_count": "1", "rbd_op_threads": "1"})
    cluster.connect(timeout=15)
    path = os.path.join(directory, "keeper.sock")
    with Server(path, Asker) as server:
        server.pools = Pools(cluster)
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        server.serve_forever()
        os.unlink(path)
        server.pools.end()
    cluster.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
