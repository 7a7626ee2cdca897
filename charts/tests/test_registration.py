"""The registration in the chart is the one that the webhook prints."""

import json
import os
import subprocess
import unittest

from chart import ROOT, find, objects, parse, VALUES


def printed(*flags):
    done = subprocess.run([os.environ["ALDAAS_WEBHOOK"], "registration", *flags], cwd=ROOT, check=True, capture_output=True)
    return json.loads(done.stdout)


class Registration(unittest.TestCase):
    maxDiff = None

    def same(self, rendered, wanted):
        labels = rendered["metadata"].pop("labels")
        self.assertEqual({k: labels[k] for k in wanted["metadata"]["labels"]}, wanted["metadata"].pop("labels"))
        self.assertEqual(rendered, wanted)

    def test_it_is_what_the_webhook_prints(self):
        rendered = find(objects("minimal"), "MutatingWebhookConfiguration", "aldaas")
        self.same(rendered, printed())

    def test_it_is_so_on_an_old_kubernetes(self):
        rendered = find(objects("kubernetes-1.20"), "MutatingWebhookConfiguration", "aldaas")
        self.same(rendered, printed("--by-namespace-label"))

    def test_it_is_so_under_another_name(self):
        values = parse(VALUES["minimal"].read_text(encoding="utf-8"))
        rendered = find(objects(values, name="team", namespace="clones"), "MutatingWebhookConfiguration", "team-aldaas")
        flags = ("--name", "team-aldaas", "--namespace", "clones", "--service", "team-aldaas-webhook")
        self.same(rendered, printed(*flags))
