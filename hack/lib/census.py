"""What exists in a pool, in all its rados namespaces, as one JSON object.

    {"images": ["golden/orders-1@sealed"], "trash": [..], "watchers": {"clone/a": 1}, "objects": [..]}

`objects` are those that are neither part of an image listed here nor RBD's own bookkeeping: what
a removal that was cut short left behind, and what aldaas keeps beside its images.

Usage: census.py CEPH_CONF POOL
"""

import collections
import json
import re
import sys

import rados
import rbd

BOOKKEEPING = re.compile(
    r"rbd_(directory|info|trash|namespace|children|mirroring|mirror_leader|task|group_directory"
    r"|trash_trash_purge_schedule|trash_purge_schedule|mirror_snapshot_schedule)$"
)
PART = re.compile(r"(?:rbd_(?:header|object_map)|rbd_data(?:\.[0-9]+)?)\.([0-9a-f]+)(?:\.|$)")


def shown(namespace: str, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name


def images_of(ioctx, namespace: str, found: dict) -> set:
    """Adds the images and trash of one rados namespace; returns the ids of both."""
    ids = set()
    for entry in rbd.RBD().list2(ioctx):
        ids.add(entry["id"])
        name = shown(namespace, entry["name"])
        try:
            with rbd.Image(ioctx, image_id=entry["id"], read_only=True) as image:
                snapshots = sorted(
                    s["name"] for s in image.list_snaps() if s["namespace"] == rbd.RBD_SNAP_NAMESPACE_TYPE_USER
                )
                watchers = len(list(image.watchers_list()))
        except rbd.ImageNotFound:
            found["objects"].append(f"{name} (in the directory, but cannot be opened)")
            continue
        found["images"].append("@".join([name, ",".join(snapshots)]) if snapshots else name)
        if watchers:
            found["watchers"][name] = watchers
    for entry in rbd.RBD().trash_list(ioctx):
        ids.add(entry["id"])
        found["trash"].append(shown(namespace, entry["name"]))
    return ids


def strays_of(objects: list, ids: set, found: dict) -> list:
    """The objects that belong to nothing that was found; pieces of one image's data as one entry."""
    named = {image.split("@")[0] for image in found["images"]}
    strays = collections.Counter()
    for namespace, key in objects:
        part = PART.match(key)
        if BOOKKEEPING.match(key) or (part and (namespace, part[1]) in ids):
            continue
        if key.startswith("rbd_id.") and shown(namespace, key[len("rbd_id.") :]) in named:
            continue
        if part and key.startswith("rbd_data"):
            key = f"rbd_data.{part[1]}.*"
        strays[shown(namespace, key)] += 1
    return [name + (f" ({count} objects)" if name.endswith("*") else "") for name, count in strays.items()]


def of_pool(cluster: rados.Rados, pool: str) -> dict:
    """All of it."""
    found = {"images": [], "trash": [], "watchers": {}, "objects": []}
    with cluster.open_ioctx(pool) as ioctx:
        ioctx.set_namespace(rados.LIBRADOS_ALL_NSPACES)
        objects = [(o.nspace, o.key) for o in ioctx.list_objects()]
        ids = set()
        for namespace in sorted({namespace for namespace, _ in objects}):
            ioctx.set_namespace(namespace)
            ids |= {(namespace, image) for image in images_of(ioctx, namespace, found)}
        found["objects"] += strays_of(objects, ids, found)
    for kind in ("images", "trash", "objects"):
        found[kind].sort()
    return found


def main() -> int:
    conf, pool = sys.argv[1:3]
    cluster = rados.Rados(conffile=conf, conf={"librados_thread_count": "1", "rbd_op_threads": "1"})
    cluster.connect(timeout=15)
    try:
        json.dump(of_pool(cluster, pool), sys.stdout)
    finally:
        cluster.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
