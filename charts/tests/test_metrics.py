"""Alerts and the dashboard speak of metrics that exist, and every alert has its chapter."""

import json
import re
import unittest

from chart import ROOT, find, objects

SOURCES = ["csi/src/metrics.rs", "webhook/src/metrics.rs", "ingest/src/controller/metrics.rs"]
REGISTERED = re.compile(
    r'register(?P<unit>_with_unit)?\(\s*"(?P<name>[a-z_]+)",.*?(?:Unit::Other\("(?P<other>\w+)"|Unit::(?P<known>\w+)|(?P<stamp>stamp),|\);)',
    re.DOTALL,
)


def known_metrics():
    names = set()
    for source in SOURCES:
        text = (ROOT / source).read_text(encoding="utf-8").partition("#[cfg(test)]")[0]
        prefix = re.search(r'with_prefix\("(\w+)"\)', text)[1]
        for match in REGISTERED.finditer(text):
            name = f"{prefix}_{match['name']}"
            if match["unit"]:
                name += "_" + (match["other"] or (match["known"] or "timestamp_seconds").lower())
            names |= {name, f"{name}_total", f"{name}_bucket", f"{name}_sum", f"{name}_count"}
    return names


def known_words():
    """Every string in the sources: labels' values are among them."""
    files = [f for room in ("csi", "webhook", "ingest", "golden") for f in (ROOT / room / "src").rglob("*.rs")]
    return {word for file in files for word in re.findall(r'"([a-z_-]+)"', file.read_text(encoding="utf-8"))}


def alerts():
    rule = find(objects("everything"), "PrometheusRule", "clones")
    return rule["spec"]["groups"][0]["rules"]


def expressions():
    yield from (rule["expr"] for rule in alerts())
    dashboard = json.loads(find(objects("everything"), "ConfigMap", "clones-dashboard")["data"]["aldaas.json"])
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel["targets"])


class Metrics(unittest.TestCase):
    def test_expressions_name_metrics_of_the_code(self):
        known = known_metrics()
        for expression in expressions():
            for name in re.findall(r"\baldaas_\w+", expression):
                self.assertIn(name, known, expression)

    def test_expressions_select_words_of_the_code(self):
        known = known_words()
        for expression in expressions():
            for label, words in re.findall(r'(\w+)(?:=~?|!~|!=)"([^"$]*)"', expression):
                if label != "namespace":
                    for word in words.split("|"):
                        self.assertIn(word, known, expression)

    def test_every_alert_has_its_chapter(self):
        chapters = re.findall(r"^### (\w+)$", (ROOT / "docs/operations.md").read_text(encoding="utf-8"), re.MULTILINE)
        names = [rule["alert"] for rule in alerts()]
        self.assertEqual(sorted(names), sorted(c for c in chapters if c.startswith("Aldaas")))
        for rule in alerts():
            self.assertTrue(rule["annotations"]["runbook_url"].endswith(f"#{rule['alert'].lower()}"))
