# shellcheck shell=bash
# What is kept of a cluster when a scenario failed. Sourced by e2e/run.

# Objects, events and logs of everything that runs, into directory $1. Whatever does not answer is left out.
keep_evidence() {
  local into=$1 kind namespace pod container
  [ -e "${KUBECONFIG:-}" ] || return 0
  mkdir -p "$into"/{objects,pods}
  for kind in nodes csidrivers csinodes databases goldenimages namespaces mutatingwebhookconfigurations; do
    timeout 10 kubectl get "$kind" -o yaml >"$into/objects/$kind.yaml" 2>&1
  done
  for kind in pods deployments daemonsets jobs configmaps leases events; do
    timeout 10 kubectl get "$kind" -A -o yaml >"$into/objects/$kind.yaml" 2>&1
  done
  timeout 10 kubectl get events -A --sort-by=.lastTimestamp >"$into/events.txt" 2>&1
  timeout 10 kubectl get databases,goldenimages,pods,jobs -A -o wide >"$into/objects.txt" 2>&1
  timeout 10 kubectl get pods -A -o "jsonpath={range .items[*]}{.metadata.namespace} {.metadata.name}{range .spec['initContainers','containers'][*]} {.name}{end}{'\n'}{end}" 2>/dev/null |
    while read -r namespace pod containers; do
      for container in $containers; do
        timeout 10 kubectl logs -n "$namespace" "$pod" -c "$container" >"$into/pods/$namespace.$pod.$container.log" 2>&1
        timeout 10 kubectl logs -n "$namespace" "$pod" -c "$container" --previous \
          >"$into/pods/$namespace.$pod.$container.before.log" 2>/dev/null ||
          rm -f "$into/pods/$namespace.$pod.$container.before.log"
      done
    done
  timeout 10 kubectl exec -n aldaas daemonset/aldaas-node -- aldaas-csi explain >"$into/explain.txt" 2>&1
  for kind in "$D/log" "$D-ceph/log"; do
    [ ! -d "$kind" ] || cp -r "$kind" "$into/$(basename "${kind%/log}")-log" 2>/dev/null
  done
  if [ -e "$D-ceph/ceph.conf" ]; then
    timeout 20 /usr/bin/python3 "$HACK/lib/census.py" "$D-ceph/ceph.conf" aldaas >"$into/census.json" 2>&1
  fi
}
