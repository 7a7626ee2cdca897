"""What a real API server says, and what Helm makes of the chart there."""

import base64
import subprocess
import unittest

from chart import CHART, ROOT, VALUES, documents, objects, parse
from cluster import Cluster, Refused

# Kinds of operators that no cluster has by itself.
OTHERS = ("monitoring.coreos.com/", "cert-manager.io/", "ceph.rook.io/")
REGISTRATION = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/aldaas"


class OnACluster(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster()
        cls.addClassCleanup(cls.cluster.close)
        for name in ("aldaas", "rook-ceph", "ci"):
            cls.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def helm(self, *words, check=True):
        command = [ROOT / "hack/chart", *words, "--kubeconfig", self.cluster.kubeconfig]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if check:
            self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def test_the_api_server_takes_every_object(self):
        for name, path in VALUES.items():
            values = parse(path.read_text(encoding="utf-8"))
            for found in objects({**values, "kubeVersion": self.cluster.version}):
                if not found["apiVersion"].startswith(OTHERS):
                    with self.subTest(values=name, object=f"{found['kind']}/{found['metadata']['name']}"):
                        self.cluster.would_take(found)

    def test_the_api_server_takes_the_examples(self):
        for file in sorted((CHART / "examples").glob("*.yaml")):
            for found in documents(file.read_text(encoding="utf-8")):
                if not found["apiVersion"].startswith(OTHERS):
                    with self.subTest(file=file.name):
                        found["metadata"].setdefault("namespace", "ci")
                        self.cluster.would_take(found)

    def test_a_field_that_does_not_exist_is_refused_here(self):
        wrong = next(o for o in objects("minimal") if o["kind"] == "Service")
        wrong = {**wrong, "spec": {**wrong["spec"], "selectr": {}}}
        with self.assertRaises(Refused):
            self.cluster.would_take(wrong)

    def test_upgrade_and_rollback_keep_what_the_webhook_wrote_and_uninstall_leaves_nothing(self):
        before = self.objects()
        values = ("-f", VALUES["minimal"])
        self.helm("install", "aldaas", *values)
        bundle = base64.b64encode(b"a certificate").decode()
        webhooks = [
            {"name": w["name"], "clientConfig": {"caBundle": bundle}} for w in self.cluster.get(REGISTRATION)["webhooks"]
        ]
        self.cluster.patch(REGISTRATION, {"webhooks": webhooks})
        self.helm("upgrade", "aldaas", *values, "--set", "webhook.replicas=3")
        self.helm("upgrade", "aldaas", *values, "--set", "webhook.replicas=4")
        self.assertEqual(self.bundles(), {bundle})
        self.helm("rollback", "aldaas", "--revision", "1")
        self.assertEqual(self.bundles(), {bundle})
        self.helm("uninstall", "aldaas")
        self.assertEqual(self.objects(), before)

    def test_databases_outlive_the_release(self):
        self.helm("install", "all", "-f", VALUES["everything"], "--set", self.without_operators())
        self.helm("uninstall", "all")
        path = "/apis/aldaas.dev/v1alpha1/databases/orders"
        self.assertEqual(self.cluster.get(path)["spec"]["engine"]["image"], "postgres:15.8")
        self.cluster.call("DELETE", path)

    def test_rooks_monitors_and_keys_are_found(self):
        rook = ("--set", "ceph.rook.enabled=true", "--dry-run")
        said = self.helm("template", "aldaas", *rook, check=False).stderr
        self.assertIn("rook-ceph-mon-endpoints is missing", said)
        endpoints = {"data": "a=10.96.0.7:6789,b=10.96.0.8:3300", "mapping": "{}"}
        self.cluster.create(self.in_rook("ConfigMap", "rook-ceph-mon-endpoints", data=endpoints))
        said = self.helm("template", "aldaas", *rook, check=False).stderr
        self.assertIn("Make a CephClient aldaas there", said)
        made = self.helm("template", "aldaas", *rook, "--set", "ceph.rook.create=true").stdout
        self.assertEqual({o["kind"] for o in documents(made)} & {"CephClient", "CephBlockPool", "Secret"}, {"CephClient", "CephBlockPool"})
        for name in ("aldaas", "aldaas-node"):
            self.cluster.create(self.in_rook("Secret", f"rook-ceph-client-{name}", stringData={name: f"key-of-{name}"}))
        made = documents(self.helm("template", "aldaas", *rook).stdout)
        secrets = {o["metadata"]["name"]: o["stringData"] for o in made if o["kind"] == "Secret"}
        self.assertIn("mon host = 10.96.0.7:6789,10.96.0.8:3300", secrets["aldaas-ceph"]["ceph.conf"])
        self.assertIn("[client.aldaas]\nkey = key-of-aldaas\n", secrets["aldaas-ceph"]["keyring"])
        self.assertIn("[client.aldaas-node]\nkey = key-of-aldaas-node\n", secrets["aldaas-ceph-node"]["keyring"])

    def in_rook(self, kind, name, **more):
        return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "rook-ceph"}, **more}

    def without_operators(self):
        return "monitoring.podMonitor.enabled=false,monitoring.prometheusRule.enabled=false"

    def bundles(self):
        return {w["clientConfig"].get("caBundle") for w in self.cluster.get(REGISTRATION)["webhooks"]}

    def objects(self):
        """Names of what a release may leave behind."""
        paths = [
            "/apis/apps/v1/deployments",
            "/apis/apps/v1/daemonsets",
            "/api/v1/services",
            "/api/v1/secrets",
            "/api/v1/configmaps",
            "/api/v1/serviceaccounts",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles",
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            "/apis/rbac.authorization.k8s.io/v1/roles",
            "/apis/rbac.authorization.k8s.io/v1/rolebindings",
            "/apis/storage.k8s.io/v1/csidrivers",
            "/apis/networking.k8s.io/v1/networkpolicies",
            "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
        ]
        return sorted(f"{p} {o['metadata']['name']}" for p in paths for o in self.cluster.get(p)["items"])
