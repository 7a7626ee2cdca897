"""docs/reference/values.md, from the comments in values.yaml."""

import json
import re

from chart import CHART, ROOT, parse

PAGE = ROOT / "docs/reference/values.md"
HEAD = """# Values of the chart

Made from `charts/aldaas/values.yaml` by `hack/chart values`. Do not edit.

| value | default | meaning |
|---|---|---|
"""
KEY = re.compile(r"^( *)([A-Za-z][A-Za-z0-9]*):(.*)$")


def entries():
    """(path, comment, has children) of every key with a comment above it."""
    path, comment = [], []
    for line in (CHART / "values.yaml").read_text(encoding="utf-8").splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            comment.append(stripped.lstrip("# "))
            continue
        key = KEY.match(line)
        if key and comment:
            depth = len(key[1]) // 2
            path = path[:depth] + [key[2]]
            yield tuple(path), " ".join(comment)
        comment = []


def page():
    defaults = parse((CHART / "values.yaml").read_text(encoding="utf-8"))
    known = list(entries())
    lines = [HEAD]
    for path, comment in known:
        value = defaults
        for key in path:
            value = value.get(key) if value else None
        name = ".".join(path)
        text = re.sub(r"\|", r"\\|", comment)
        if any(other[: len(path)] == path and other != path for other, _ in known):
            lines.append(f"| **`{name}`** | | {text} |\n")
        else:
            lines.append(f"| `{name}` | `{json.dumps(value, ensure_ascii=False)}` | {text} |\n")
    return "".join(lines)


def undocumented():
    """Keys of values.yaml without a comment; what is below a documented value that is not split up is its value."""
    known = {path for path, _ in entries()}

    def walk(value, path):
        if path and path not in known:
            yield ".".join(path)
        elif isinstance(value, dict) and (not path or any(o[: len(path)] == path and o != path for o in known)):
            for key, inner in value.items():
                yield from walk(inner, path + (key,))

    return list(walk(parse((CHART / "values.yaml").read_text(encoding="utf-8")), ()))
