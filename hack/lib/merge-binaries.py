"""Makes one list of test binaries from several that `cargo nextest list` printed.

aldaas-restore is built with other flags than the rest, and one run of all tests is better than two:
one summary, and no core idle at the end of the first.

Usage: merge-binaries.py LIST.json... > ALL.json
"""

import json
import sys


def main() -> None:
    lists = []
    for name in sys.argv[1:]:
        with open(name, encoding="utf-8") as file:
            lists.append(json.load(file))
    merged = lists[0]
    meta = merged["rust-build-meta"]
    for other in lists[1:]:
        merged["rust-binaries"].update(other["rust-binaries"])
        theirs = other["rust-build-meta"]
        for key in ("base-output-directories", "linked-paths"):
            meta[key] = sorted({*meta.get(key, []), *theirs.get(key, [])})
        for key in ("non-test-binaries", "build-script-out-dirs", "build-script-info"):
            meta[key] = {**theirs.get(key, {}), **meta.get(key, {})}
    json.dump(merged, sys.stdout)


if __name__ == "__main__":
    main()
