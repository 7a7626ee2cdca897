"""The chart's tests: run by hack/chart test. Also writes what is generated: snapshots, values."""

import difflib
import sys
import unittest

import reference
from chart import HERE, VALUES, render, text

BASE = "minimal"
WHOLE = (BASE, "everything")  # where everything has another name, a difference tells nothing


def snapshots():
    """Files and what should be in them: some renderings as they are, the others as what differs from the smallest."""
    base = text(render(BASE))
    for name in VALUES:
        rendered = text(render(name))
        if name in WHOLE:
            yield HERE / f"snapshots/{name}.yaml", rendered
        else:
            lines = [part.splitlines(keepends=True) for part in (base, rendered)]
            yield HERE / f"snapshots/{name}.diff", "".join(difflib.unified_diff(*lines, BASE, name, n=2))


def write(files):
    for path, wanted in files:
        path.parent.mkdir(exist_ok=True)
        path.write_text(wanted, encoding="utf-8")
        print(path.relative_to(HERE.parents[1]))


def main():
    if sys.argv[1] == "snapshots":
        write(snapshots())
    elif sys.argv[1] == "values":
        write([(reference.PAGE, reference.page())])
    else:
        if "--offline" in sys.argv:
            print("offline: the API server's opinion is not asked", file=sys.stderr)
        suite = unittest.defaultTestLoader.discover(str(HERE), pattern="test_*.py" if "--offline" not in sys.argv else "test_[!c]*.py")
        result = unittest.TextTestRunner(verbosity=1 + ("-v" in sys.argv)).run(suite)
        sys.exit(not result.wasSuccessful())


if __name__ == "__main__":
    main()
