"""Speaks to the API server that hack/kube started in a directory: `wait` until it is ready, `apply FILE...`.

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


if sys.argv[2] == "wait":
    until("the API server is ready", lambda: call("GET", "/readyz") == b"ok")
else:
    for argument in sys.argv[3:]:
        apply(argument)
