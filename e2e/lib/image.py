"""A container image of one layer, as a file that `ctr images import`, docker and podman read.

Usage: image.py OUTPUT NAME:TAG ROOT.tar CONFIG.json

CONFIG is the `config` of an OCI image: Env, Entrypoint, Cmd, User and so on.
"""

import hashlib
import io
import json
import os
import sys
import tarfile


def digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    output, name, root, config_file = sys.argv[1:]
    layer = digest(root)
    with open(config_file, encoding="utf-8") as file:
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": json.load(file),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer}"]},
        }
    text = json.dumps(config).encode()
    config_name = f"{hashlib.sha256(text).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": [f"{layer}/layer.tar"]}]
    with tarfile.open(f"{output}.new", "w") as tar:
        for path, content in ((config_name, text), ("manifest.json", json.dumps(manifest).encode())):
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        tar.add(root, f"{layer}/layer.tar")
    os.rename(f"{output}.new", output)


main()
