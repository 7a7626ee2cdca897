"""Speaks to the API server that hack/kube started in a directory: `wait` until it is ready, `apply FILE...`, `empty` it.

kubectl is not to be had everywhere; Python is.
"""

import json
import re
import ssl
import sys
import time
import urllib.error
import urllib.request

DIR = sys.argv[1]
LIMIT = time.monotonic() + 60


def settings():
    with open(f"{DIR}/kubeconfig", encoding="utf-8") as file:
        text = file.read()
    return re.search(r'server: "([^"]+)"', text)[1], re.search(r'token: "([^"]+)"', text)[1]


SERVER, TOKEN = settings()


def call(method, path, body=None, kind=None):
    context = ssl.create_default_context(cafile=f"{DIR}/certs/apiserver.crt")
    request = urllib.request.Request(SERVER + path, data=body, method=method)
    request.add_header("Authorization", f"Bearer {TOKEN}")
    if kind:
        request.add_header("Content-Type", kind)
    with urllib.request.urlopen(request, context=context, timeout=20) as answer:
        return answer.read()


def until(what, done):
    """Asks again until it is so; says what was answered last when time is over."""
    last = "no"
    while time.monotonic() < LIMIT:
        try:
            if done():
                return
        except (OSError, urllib.error.URLError) as error:
            last = error
        time.sleep(0.05)
    sys.exit(f"{what}: not in time ({last})")


def established(path):
    conditions = (json.loads(call("GET", path)).get("status") or {}).get("conditions") or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


def apply(file):
    with open(file, encoding="utf-8") as stream:
        text = stream.read()
    name = re.search(r"^  name: (\S+)$", text, re.MULTILINE)[1]
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
    try:
        try:
            call("POST", path.rpartition("/")[0], text.encode(), "application/yaml")
        except urllib.error.HTTPError as error:
            if error.code != 409:
                raise
            version = json.loads(call("GET", path))["metadata"]["resourceVersion"]
            text = text.replace("metadata:\n", f'metadata:\n  resourceVersion: "{version}"\n', 1)
            call("PUT", path, text.encode(), "application/yaml")
    except urllib.error.HTTPError as error:
        sys.exit(f"{file}: {error.read().decode()}")
    until(f"{name} is served", lambda: established(path))


# What the API server makes itself, or what says what there may be.
KEPT = {"apiservices", "customresourcedefinitions", "clusterroles", "clusterrolebindings", "roles", "rolebindings",
        "priorityclasses", "flowschemas", "prioritylevelconfigurations", "namespaces", "componentstatuses"}


def kinds():
    """Where the objects of each kind are listed that can be removed."""
    groups = json.loads(call("GET", "/apis"))["groups"]
    versions = ["/api/v1"] + ["/apis/" + group["preferredVersion"]["groupVersion"] for group in groups]
    for version in versions:
        for kind in json.loads(call("GET", version))["resources"]:
            if {"list", "delete"} <= set(kind["verbs"]) and kind["name"] not in KEPT:
                yield version, kind


def remove(version, kind, metadata):
    namespace = f"/namespaces/{metadata['namespace']}" if kind["namespaced"] else ""
    path = f"{version}{namespace}/{kind['name']}/{metadata['name']}"
    try:
        if metadata.get("finalizers"):
            call("PATCH", path, b'{"metadata": {"finalizers": null}}', "application/merge-patch+json")
        call("DELETE", path + "?gracePeriodSeconds=0")
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise


def empty():
    for version, kind in kinds():
        for item in json.loads(call("GET", f"{version}/{kind['name']}"))["items"] or []:
            metadata = item["metadata"]
            if not metadata.get("namespace", "").startswith("kube-") and metadata["name"] != "kubernetes":
                remove(version, kind, metadata)
    # No controller ends a namespace here.
    for item in json.loads(call("GET", "/api/v1/namespaces"))["items"]:
        name = item["metadata"]["name"]
        path = f"/api/v1/namespaces/{name}"
        if not name.startswith("kube-") and name != "default":
            gone = json.loads(call("DELETE", path))
            gone["spec"]["finalizers"] = []
            call("PUT", path + "/finalize", json.dumps(gone).encode(), "application/json")


if sys.argv[2] == "empty":
    empty()
elif sys.argv[2] == "wait":
    until("the API server is ready", lambda: call("GET", "/readyz") == b"ok")
else:
    for argument in sys.argv[3:]:
        apply(argument)
