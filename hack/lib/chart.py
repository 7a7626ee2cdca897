"""What `helm` does, by Helm's own engine: template, install, upgrade, rollback, uninstall, helm-test, status.

Run by hack/chart, which says what there is.
"""

import argparse
import json
import os
import sys

import helm_python as helm
from helm_python import _native

CHART = "charts/aldaas"


def arguments():
    parser = argparse.ArgumentParser(prog="hack/chart", add_help=False)
    parser.add_argument(
        "command", choices=["template", "install", "upgrade", "rollback", "uninstall", "helm-test", "status"]
    )
    parser.add_argument("release", nargs="?", default="aldaas")
    parser.add_argument("-n", "--namespace", default="aldaas")
    parser.add_argument("-f", "--values", action="append", default=[])
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--kubeconfig", default=os.environ.get("KUBECONFIG"))
    parser.add_argument("--wait", type=int)
    parser.add_argument("--revision", type=int)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--server-side", action="store_true")
    return parser.parse_args()


def merge(into, other):
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value
    return into


def values(args):
    all_values = {}
    for name in args.values:
        with open(name, encoding="utf-8") as file:
            merge(all_values, helm.values_from_yaml(file.read()))
    for pair in args.set:
        merge(all_values, helm.parse_set_string(pair))
    return all_values


def show(rendered):
    for name in sorted(rendered):
        text = rendered[name].strip()
        if text and not name.endswith("NOTES.txt"):
            print(f"---\n# Source: {name}\n{text.removeprefix('---').lstrip()}")


def template(args):
    with helm.Chart.load(CHART) as chart:
        if not args.dry_run:
            show(chart.render(values(args), name=args.release, namespace=args.namespace))
            return
        with helm.Config(kubeconfig_path=args.kubeconfig, namespace=args.namespace) as cluster:
            show(cluster.render(chart, values(args), name=args.release, namespace=args.namespace))


def apply(cluster, args):
    """Installs or upgrades. The module's own methods can't say that the client is to merge, and an API server before 1.25
    refuses, in server-side apply, definitions with fields that it is too old for."""
    options = {
        "namespace": args.namespace,
        "wait": "watcher" if args.wait else "hookOnly",
    }
    if args.command == "install":
        options |= {"create_namespace": True, "server_side_apply": args.server_side}
    else:
        options["server_side_apply"] = "true" if args.server_side else "false"
    if args.wait:
        options["timeout_seconds"] = args.wait
    none = _native.HANDLE(0)
    return json.loads(
        _native.call_string(
            f"helm_{args.command}", cluster._raw(), none, none, CHART, args.release, json.dumps(values(args)),
            json.dumps(options),
        )
    )


def act(args):
    wait = {"wait": "watcher" if args.wait else "hookOnly", "timeout": args.wait}
    with helm.Config(kubeconfig_path=args.kubeconfig, namespace=args.namespace) as cluster:
        if args.command in ("install", "upgrade"):
            done = apply(cluster, args)
            print(f"{args.release}: revision {done['revision']}, {done['status']}\n", file=sys.stderr)
            print(done.get("notes", "").strip())
        elif args.command == "rollback":
            cluster.rollback(args.release, version=args.revision, wait=wait["wait"], timeout=args.wait)
        elif args.command == "uninstall":
            cluster.uninstall(args.release, ignore_not_found=True, wait=wait["wait"], timeout=args.wait)
        elif args.command == "helm-test":
            print(cluster.test(args.release, logs=True, timeout=args.wait).get("logs", ""))
        else:
            done = cluster.status(args.release)
            print(f"{args.release}: revision {done['revision']}, {done['status']}")


def main():
    args = arguments()
    try:
        template(args) if args.command == "template" else act(args)
    except helm.HelmError as error:
        sys.exit(f"{args.command} {args.release}: {error}")


if __name__ == "__main__":
    main()
