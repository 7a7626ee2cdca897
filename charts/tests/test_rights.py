"""Each program has its own account, and no more rights than it uses."""

import unittest

from chart import VALUES, find, objects


def rules_of(found, account):
    """(kind of role, rule) of everything that is bound to a service account."""
    for binding in (o for o in found if o["kind"].endswith("RoleBinding")):
        if any(s["name"] == account for s in binding["subjects"]):
            reference = binding["roleRef"]
            for rule in find(found, reference["kind"], reference["name"])["rules"]:
                yield reference["kind"], rule


def pods(found):
    for o in found:
        if o["kind"] == "Pod":
            yield o["metadata"]["name"], o["spec"]
        elif o["kind"] in ("Deployment", "DaemonSet"):
            yield o["metadata"]["name"], o["spec"]["template"]["spec"]


class Rights(unittest.TestCase):
    def test_no_role_has_a_wildcard_or_may_give_rights_away(self):
        for values in VALUES:
            for role in (o for o in objects(values) if o["kind"] in ("Role", "ClusterRole")):
                for rule in role["rules"]:
                    for words in (rule["apiGroups"], rule["resources"], rule["verbs"]):
                        self.assertFalse({"*", "bind", "escalate", "impersonate"} & set(words), role["metadata"]["name"])

    def test_the_node_plugin_reads_no_secrets(self):
        for _, rule in rules_of(objects("minimal"), "aldaas-node"):
            self.assertFalse({"secrets", "configmaps", "pods/exec"} & set(rule["resources"]), rule)

    def test_nobody_reads_secrets_of_other_namespaces(self):
        for role in (o for o in objects("minimal") if o["kind"] == "ClusterRole"):
            for rule in role["rules"]:
                self.assertNotIn("secrets", rule["resources"], role["metadata"]["name"])

    def test_the_webhook_reads_its_own_secret_only(self):
        for _, rule in rules_of(objects("minimal"), "aldaas-webhook"):
            if "secrets" in rule["resources"] and rule["verbs"] != ["create"]:
                self.assertEqual(rule["resourceNames"], ["aldaas-webhook-tls"])
            if "mutatingwebhookconfigurations" in rule["resources"]:
                self.assertEqual(rule["resourceNames"], ["aldaas"])
        # with a certificate from elsewhere it needs neither
        for _, rule in rules_of(objects("cert-manager"), "aldaas-webhook"):
            self.assertFalse({"secrets", "mutatingwebhookconfigurations"} & set(rule["resources"]))

    def test_jobs_and_the_io_server_have_no_rights_and_no_token(self):
        found = objects("minimal")
        for account in ("aldaas-jobs", "aldaas-io"):
            self.assertEqual(list(rules_of(found, account)), [])
            self.assertIs(find(found, "ServiceAccount", account)["automountServiceAccountToken"], False)

    def test_only_what_mounts_is_root(self):
        for values in VALUES:
            for name, pod in pods(objects(values)):
                contexts = [c["securityContext"] for c in pod.get("initContainers", []) + pod["containers"]]
                if name.endswith(("-node", "-io")):
                    self.assertTrue(all(c["privileged"] for c in contexts), name)
                    continue
                self.assertIs(pod["securityContext"]["runAsNonRoot"], True, name)
                self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"}, name)
                for context in contexts:
                    self.assertIs(context["allowPrivilegeEscalation"], False, name)
                    self.assertEqual(context["capabilities"], {"drop": ["ALL"]}, name)

    def test_each_program_has_its_own_account(self):
        accounts = [pod["serviceAccountName"] for name, pod in pods(objects("minimal")) if not name.endswith("-test")]
        self.assertEqual(sorted(accounts), ["aldaas-controller", "aldaas-io", "aldaas-node", "aldaas-webhook"])
        for pod in dict(pods(objects("minimal"))).values():
            for container in pod["containers"]:
                self.assertNotIn("envFrom", container)
