"""An API server of the tests' own: asked what it thinks of each object."""

import json
import os
import pathlib
import shutil
import ssl
import subprocess
import tempfile
import urllib.error
import urllib.request

from chart import ROOT, parse


class Refused(Exception):
    """What the API server said."""


class Cluster:
    """One that hack/kube starts and removes."""

    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="aldaas-chart."))
        self.kubeconfig = self.dir / "kube/kubeconfig"
        self._kube("up")
        known = parse(self.kubeconfig.read_text(encoding="utf-8"))
        entry = known["clusters"][0]["cluster"]
        self.server, self.token = entry["server"], known["users"][0]["user"]["token"]
        self.context = ssl.create_default_context(cafile=entry["certificate-authority"])
        self.version = self.get("/version")["gitVersion"]

    def close(self):
        self._kube("down")
        shutil.rmtree(self.dir)

    def _kube(self, verb):
        command = [ROOT / "hack/kube", verb, "--dir", self.dir / "kube"]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "KUBECONFIG": ""}, check=False)
        if done.returncode:
            raise RuntimeError(f"hack/kube {verb}: {done.stderr}")

    def call(self, method, path, body=None, kind="application/json"):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.server + path, data=data, method=method)
        request.add_header("Authorization", f"Bearer {self.token}")
        request.add_header("Content-Type", kind)
        try:
            with urllib.request.urlopen(request, context=self.context, timeout=30) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise Refused(json.loads(error.read())["message"]) from None

    def get(self, path):
        return self.call("GET", path)

    def patch(self, path, body):
        return self.call("PATCH", path, body, "application/strategic-merge-patch+json")

    def _collection(self, found):
        version = found["apiVersion"]
        base = f"/api/{version}" if "/" not in version else f"/apis/{version}"
        for resource in self.get(base)["resources"]:
            if resource["kind"] == found["kind"] and "/" not in resource["name"]:
                namespace = found["metadata"].get("namespace") if resource["namespaced"] else None
                return base + (f"/namespaces/{namespace}" if namespace else "") + f"/{resource['name']}"
        raise Refused(f"{version} {found['kind']}: there is no such kind")

    def create(self, found):
        return self.call("POST", self._collection(found), found)

    def would_take(self, found):
        """Server-side apply, dry: fields that are not in the schema are refused, too."""
        path = f"{self._collection(found)}/{found['metadata']['name']}?dryRun=All&fieldManager=test&force=true"
        return self.call("PATCH", path, found, "application/apply-patch+yaml")
