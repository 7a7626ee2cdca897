"""Prometheus itself says when each alert fires, and what it says then."""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

from chart import find, objects

NS = 'namespace="aldaas"'
DB = f'{NS},database="orders"'
NODE = f'{NS},node="n1"'


class Case:
    """Series (in promtool's words, a value a minute), when it must be quiet, when it must fire, and with what."""

    def __init__(self, series, quiet, fires, summary, **labels):
        self.series, self.quiet, self.fires, self.summary, self.labels = series, quiet, fires, summary, labels


CASES = {
    "AldaasPoolFilling": Case(
        {f"aldaas_pool_fullness_ratio{{{NODE}}}": "0.8x30 0.86x60"}, 35, 45,
        "The pool is 86% full. At 100 % every clone stops writing.",
    ),
    "AldaasPoolFull": Case(
        {f"aldaas_pool_fullness_ratio{{{NODE}}}": "0.89x30 0.95x60"}, 30, 40,
        "The pool is 95% full. At 100 % every clone stops writing.",
    ),
    "AldaasLatestTooOld": Case(
        {f"aldaas_latest_age_seconds{{{DB}}}": "172700+60x60"}, 5, 20,
        "The newest golden image of orders is 2d 0h 18m 20s old.", database="orders",
    ),
    "AldaasNoLatest": Case(
        {f"aldaas_bucket_reachable{{{DB}}}": "1x2000"}, 1400, 1450,
        "orders has no golden image that could be cloned.", database="orders",
    ),
    "AldaasIngestFailed": Case(
        {f'aldaas_ingests_total{{{DB},outcome="failed"}}': "_x10 1x200"}, 5, 15,
        "A dump of orders did not become a golden image.", database="orders",
    ),
    "AldaasIngestRetrying": Case(
        {f"aldaas_ingest_retries_total{{{DB}}}": "0+0.1x200"}, 20, 100,
        "The ingest of orders was begun 6 times again within an hour.", database="orders",
    ),
    "AldaasBucketUnreachable": Case(
        {f"aldaas_bucket_reachable{{{DB}}}": "1x10 0x60"}, 20, 30,
        "The bucket of orders can't be read.", database="orders",
    ),
    "AldaasReaperBehind": [
        Case(series, quiet, fires, "The reaper on n1 does not get its work done.", node="n1")
        for series, quiet, fires in (
            ({f'aldaas_reaper_passes_total{{{NODE},outcome="ok"}}': "0+2x30 60x60"}, 40, 70),
            ({f"aldaas_reaper_late{{{NODE}}}": "0x10 1x60"}, 20, 30),
        )
    ],
    "AldaasClonesQuarantined": Case(
        {f'aldaas_clones{{{NODE},state="quarantined"}}': "0x10 2x60"}, 20, 30,
        "2 clones on n1 can't be let go: somebody holds them.", node="n1",
    ),
    "AldaasPublishFailing": Case(
        {
            f'aldaas_operations_total{{{NODE},operation="publish",outcome="ok"}}': "0+5x60 300+1x60",
            f'aldaas_operations_total{{{NODE},operation="publish",outcome="internal"}}': "0x60 0+5x60",
        }, 60, 80,
        "Most pods on n1 that ask for a clone do not get it.", node="n1",
    ),
    "AldaasCertificateExpiring": Case(
        {f'aldaas_webhook_certificate_expiry_timestamp_seconds{{{NS},of="serving"}}': "608400x200"}, 30, 130,
        "The webhook's certificate expires in 6d 22h 50m 0s, and nobody renews it.",
    ),
    "AldaasWebhookDown": Case(
        {f'aldaas_webhook_cache_objects{{{NS},kind="databases"}}': "1x10 _x60"}, 10, 25,
        "No webhook runs: pods that ask for a database are not made.", namespace="aldaas",
    ),
    "AldaasWebhookStale": Case(
        {f'aldaas_webhook_cache_age_seconds{{{NS},kind="databases"}}': "10x10 180x60"}, 12, 20,
        "What the webhook knows is 3m 0s old: the API server does not answer it.",
    ),
    "AldaasControllerDown": Case(
        {f"aldaas_controller_leader{{{NS}}}": "1x30 0x60"}, 35, 45,
        "No controller acts: dumps do not become golden images.",
    ),
    "AldaasCephAway": Case(
        {f"aldaas_controller_ceph_up{{{NS}}}": "1x10 0x60"}, 12, 20,
        "Ceph does not answer. Running clones wait, new ones are not made.",
    ),
}

VALUES = {"ceph": {"existingSecret": "x"}, "monitoring": {"prometheusRule": {"enabled": True}}}


class Alerts(unittest.TestCase):
    maxDiff = None

    def test_each_fires_when_it_should_and_says_what_is_wrong(self):
        spec = find(objects(VALUES), "PrometheusRule", "aldaas")["spec"]
        rules = {rule["alert"]: rule for rule in spec["groups"][0]["rules"]}
        self.assertEqual(sorted(rules), sorted(CASES))
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory)
            # Prometheus reads YAML, and so JSON.
            (path / "rules.yaml").write_text(json.dumps(spec), encoding="utf-8")
            tests = [
                self.promtools_test(rules[name], case)
                for name, cases in CASES.items()
                for case in (cases if isinstance(cases, list) else [cases])
            ]
            (path / "tests.yaml").write_text(
                json.dumps({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}), encoding="utf-8"
            )
            self.promtool("check", "rules", path / "rules.yaml")
            self.promtool("test", "rules", path / "tests.yaml")

    def promtools_test(self, rule, case):
        expected = {
            "exp_labels": {"severity": rule["labels"]["severity"], **case.labels},
            "exp_annotations": {"summary": case.summary, "runbook_url": rule["annotations"]["runbook_url"]},
        }

        def at(minute, alerts):
            return {"eval_time": f"{minute}m", "alertname": rule["alert"], "exp_alerts": alerts}

        return {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
            "alert_rule_test": [at(case.quiet, []), at(case.fires, [expected])],
        }

    def promtool(self, *words):
        done = subprocess.run([os.environ["PROMTOOL"], *words], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
