"""What is rendered, and that it is what was looked at and agreed to."""

import json
import unittest

import helm_python as helm
import reference
import run
from chart import CHART, HERE, ROOT, VALUES, documents, find, objects, parse, render


class Rendered(unittest.TestCase):
    maxDiff = None

    def test_helm_finds_nothing_to_complain_about(self):
        for name, path in VALUES.items():
            values = parse(path.read_text(encoding="utf-8"))
            report = helm.lint(str(CHART), values, strict=True, kube_version=values.get("kubeVersion"))
            self.assertEqual([m for m in report["messages"] if m["severity"] > 1], [], name)

    def test_snapshots_are_what_is_rendered(self):
        wanted = dict(run.snapshots())
        for path, text in wanted.items():
            self.assertTrue(path.exists(), f"{path} is missing: hack/chart snapshots")
            self.assertEqual(path.read_text(encoding="utf-8"), text, f"{path.name}: look at it, then hack/chart snapshots")
        self.assertEqual(sorted(HERE.glob("snapshots/*")), sorted(wanted))

    def test_every_value_is_documented_and_the_page_is_fresh(self):
        self.assertEqual(reference.undocumented(), [])
        self.assertEqual(reference.PAGE.read_text(encoding="utf-8"), reference.page(), "hack/chart values")

    def test_the_driver_is_as_designed(self):
        driver = find(objects("minimal"), "CSIDriver", "csi.aldaas.dev")
        self.assertEqual(
            driver["spec"],
            {
                "attachRequired": False,
                "podInfoOnMount": True,
                "fsGroupPolicy": "None",
                "requiresRepublish": False,
                "seLinuxMount": True,
                "volumeLifecycleModes": ["Ephemeral"],
            },
        )
        self.assertEqual(
            driver["metadata"]["labels"]["security.kubernetes.io/csi-ephemeral-volume-profile"], "restricted"
        )

    def test_an_upgrade_of_the_plugin_leaves_the_io_server_alone(self):
        server = find(objects("minimal"), "DaemonSet", "aldaas-io")
        self.assertEqual(server["spec"]["updateStrategy"], {"type": "OnDelete"})
        container = server["spec"]["template"]["spec"]["containers"][0]
        self.assertNotIn("livenessProbe", container)
        self.assertNotIn("limits", container["resources"])
        plugin = find(objects("minimal"), "DaemonSet", "aldaas-node")
        self.assertIn("--external-fuse", plugin["spec"]["template"]["spec"]["containers"][0]["args"])
        kinds = {(o["kind"], o["metadata"]["name"]) for o in objects("krbd")}
        self.assertNotIn(("DaemonSet", "aldaas-io"), kinds)

    def test_flags_are_flags_of_the_programs(self):
        sources = {
            "aldaas-csi": "csi/src/args.rs",
            "aldaas-webhook": "webhook/src/args.rs",
            "aldaas-ingest": "ingest/src/controller/args.rs",
            "aldaas-fuse": "volume/src/bin/aldaas-fuse.rs",
            "aldaas-restore": "restore/src/args.rs",
        }
        seen = set()
        for name in VALUES:
            for found in objects(name):
                pod = found.get("spec", {}).get("template", {}).get("spec", {})
                for container in pod.get("initContainers", []) + pod.get("containers", []):
                    program = container["command"][0].rpartition("/")[2]
                    seen.add(program)
                    text = (ROOT / sources[program]).read_text(encoding="utf-8")
                    for flag in (a for a in container["args"] if a.startswith("--")):
                        field = flag[2:].partition("=")[0].replace("-", "_")
                        self.assertRegex(text, rf"\b{field}: ", f"{program} knows no {flag}")
        self.assertEqual(seen, set(sources))

    def test_jobs_run_where_the_values_say(self):
        def placement(name):
            found = [o for o in objects(name) if o["kind"] == "Deployment" and o["metadata"]["name"].endswith("-controller")]
            args = found[0]["spec"]["template"]["spec"]["containers"][0]["args"]
            return [json.loads(a.partition("=")[2]) for a in args if a.startswith("--job-placement=")]

        self.assertEqual(placement("minimal"), [])
        self.assertEqual(
            placement("everything"),
            [
                {
                    "nodeSelector": {"clones": "yes", "role": "restores: large"},
                    "priorityClassName": "low",
                    "tolerations": [{"key": "restores", "operator": "Exists", "effect": "NoSchedule"}],
                }
            ],
        )

    def test_jobs_find_their_program_where_the_plugins_pod_lays_it(self):
        def laid(name):
            """Where it is laid, as the node sees it, and where Jobs look for it."""
            found = objects(name)
            (plugin,) = [o for o in found if o["kind"] == "DaemonSet" and o["metadata"]["name"].endswith("-node")]
            pod = plugin["spec"]["template"]["spec"]
            paths = []
            for container in pod.get("initContainers", []):
                (mount,) = container["volumeMounts"]
                (volume,) = [v for v in pod["volumes"] if v["name"] == mount["name"]]
                paths.append(container["args"][-1].replace(mount["mountPath"], volume["hostPath"]["path"]))
            (controller,) = [o for o in found if o["kind"] == "Deployment" and o["metadata"]["name"].endswith("-controller")]
            args = controller["spec"]["template"]["spec"]["containers"][0]["args"]
            return paths, [a.partition("=")[2] + "/aldaas-restore" for a in args if a.startswith("--job-program-dir=")]

        for name in ("minimal", "krbd"):
            there, wanted = laid(name)
            self.assertEqual(len(there), 1)
            self.assertEqual(there, wanted)
        self.assertNotEqual(laid("minimal"), laid("krbd"))
        self.assertEqual(laid("everything"), ([], []), "jobs.program: pod")

    def test_names_follow_the_release(self):
        named = {o["metadata"]["name"] for o in objects("minimal", name="team") if o["kind"] == "Deployment"}
        self.assertEqual(named, {"team-aldaas-controller", "team-aldaas-webhook"})

    def test_notes_say_what_to_do_next(self):
        notes = render("minimal")["aldaas/templates/NOTES.txt"]
        for command in ("kubectl -n aldaas get pods", "kubectl apply -f", "aldaas/db="):
            self.assertIn(command, notes)
        self.assertIn("aldaas/webhook=enabled", render("kubernetes-1.20")["aldaas/templates/NOTES.txt"])

    def test_the_test_says_when_it_tests_nothing(self):
        pod = find(objects("minimal"), "Pod", "aldaas-test")
        self.assertIn("Nothing was tested", pod["spec"]["containers"][0]["command"][-1])
        pod = find(objects("everything"), "Pod", "clones-test")
        self.assertEqual(pod["spec"]["volumes"][0]["csi"]["volumeAttributes"], {"db": "orders:latest"})
        self.assertEqual(pod["spec"]["securityContext"]["runAsUser"], 70)

    def test_examples_are_yaml_of_our_kinds(self):
        files = sorted((CHART / "examples").glob("*.yaml"))
        self.assertGreaterEqual(len(files), 4)
        for file in files:
            for found in documents(file.read_text(encoding="utf-8")):
                self.assertIn("name", found["metadata"], file)
