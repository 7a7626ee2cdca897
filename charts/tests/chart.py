"""What the tests look at: the chart, rendered by Helm's own engine."""

import functools
import json
import os
import pathlib
import re

import helm_python as helm

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/aldaas"
HERE = ROOT / "charts/tests"
VALUES = {path.stem: path for path in sorted((HERE / "values").glob("*.yaml"))}


def parse(text):
    """One YAML document, as Helm reads it."""
    return helm.values_from_yaml(text)


def documents(text):
    found = (parse(part) for part in re.split(r"^---.*$", text, flags=re.MULTILINE) if part.strip())
    return [document for document in found if document]


@functools.lru_cache(maxsize=None)
def _render(values, name, namespace):
    with helm.Chart.load(os.fspath(CHART)) as chart:
        return chart.render(json.loads(values), name=name, namespace=namespace)


def render(values, name="aldaas", namespace="aldaas"):
    """Templates' names to text. Values are a dict or the name of a file in values/."""
    if isinstance(values, str):
        values = parse(VALUES[values].read_text(encoding="utf-8"))
    return _render(json.dumps(values, sort_keys=True), name, namespace)


def text(rendered):
    """All of it in a fixed order, as it is compared."""
    parts = []
    for name in sorted(rendered):
        body = rendered[name].strip().removeprefix("---").strip()
        if body:
            parts.append(f"---\n# {name.removeprefix('aldaas/templates/')}\n{body}\n")
    return "".join(parts)


def objects(values, **names):
    """Every object that is rendered."""
    rendered = render(values, **names)
    return [o for name, body in sorted(rendered.items()) if not name.endswith("NOTES.txt") for o in documents(body)]


def find(found, kind, name):
    matching = [o for o in found if o["kind"] == kind and o["metadata"]["name"] == name]
    assert len(matching) == 1, f"{len(matching)} objects {kind}/{name}"
    return matching[0]
