#!/usr/bin/env bash
# Runs the node plugin in a small guest whose kernel attaches images by itself.
#
# Wants: PLUGIN, KUBELET (paths of the programs), OBJECTS (what stands for Kubernetes), HACK (path of hack/). Prints the path of
# its cluster's configuration, and waits for a line; then what the guest says, and waits for the end of its input.
set -euo pipefail

: "${PLUGIN:?}" "${KUBELET:?}" "${OBJECTS:?}"
# shellcheck source=../../volume/tests/guest.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../volume/tests/guest.sh"

guest_init() {
  cat <<'GUEST'
mkdir -p /var/lib/kubelet/pods /var/tmp
cat >/objects.json <<'OBJECTS'
GUEST
  cat "$OBJECTS"
  cat <<'GUEST'

OBJECTS
mount -t tmpfs kubelet /var/lib/kubelet && mkdir /var/lib/kubelet/pods && mount --make-shared /var/lib/kubelet
start() {
  aldaas-csi serve --endpoint unix:///run/csi.sock --kubelet-dir /var/lib/kubelet --node node-a --objects /objects.json \
    --pool aldaas --attach krbd --reaper-period 1h --lease 20s >>/run/log 2>&1 &
  PLUGIN=$!
  n=0
  until grep -q '/run/csi.sock' /proc/net/unix; do
    n=$((n + 1)); [ $n -lt 300 ] || fail "the plugin does not start: $(tail -3 /run/log)"
    sleep 0.1
  done
}
target() { echo /var/lib/kubelet/pods/$1; }
publish() { kubelet /run/csi.sock publish $1 $(target $1) db=orders:latest $2 2>/run/said || fail "publish $1: $(cat /run/said; tail -5 /run/log)"; }
unpublish() { kubelet /run/csi.sock unpublish $1 $(target $1) 2>/run/said || fail "unpublish $1: $(cat /run/said; tail -5 /run/log)"; }
on_rbd() { grep "^/dev/rbd[0-9]* $(target $1) " /proc/mounts >/dev/null || fail "$1 is not on rbd: $(cat /proc/mounts)"; }
mapped() { [ "$(ls /sys/bus/rbd/devices | wc -l)" = $1 ] || fail "not $1 mapped: $(ls /sys/bus/rbd/devices)"; }
start
# Two pods' own clones.
for pod in a b; do
  publish $pod
  on_rbd $pod
  [ "$(cat $(target $pod)/hello)" = "from the golden image" ] || fail "$pod holds other data"
  echo "written by $pod" >$(target $pod)/hello || fail "write as $pod"
done
mapped 2
[ "$(cat /sys/bus/rbd/devices/*/client_id | sort -u | wc -l)" = 1 ] || fail "two clones do not share a client"
echo "two clones on $(grep -c '^/dev/rbd' /proc/mounts) mounts"
# A named one, with a client of its own, that comes back to the next pod.
publish c clone=pr-1
on_rbd c
[ "$(cat /sys/bus/rbd/devices/*/client_id | sort -u | wc -l)" = 2 ] || fail "a named clone shares its client"
echo "kept" >$(target c)/kept
unpublish c
mapped 2
publish d clone=pr-1
[ "$(cat $(target d)/kept)" = kept ] || fail "the named clone lost its data"
unpublish d
# A plugin that is killed disturbs nobody, and its successor knows what is there.
kill -9 $PLUGIN; wait $PLUGIN 2>/dev/null
echo "written without a plugin" >$(target a)/hello && sync || fail "a pod's write failed without the plugin"
start
publish a
[ "$(cat $(target a)/hello)" = "written without a plugin" ] || fail "another clone after the restart"
mapped 2
unpublish a
unpublish b
unpublish never
none_mapped
[ -z "$(ls /var/lib/kubelet/pods)" ] || fail "left of the pods: $(ls /var/lib/kubelet/pods)"
grep -q '^/dev/rbd' /proc/mounts && fail "still mounted: $(cat /proc/mounts)"
[ -z "$(find /run/aldaas -mindepth 1)" ] || fail "left: $(find /run/aldaas)"
kill $PLUGIN; wait $PLUGIN || fail "the plugin ends with $?: $(tail -5 /run/log)"
passed
GUEST
}

guest_kernel
guest_cluster
echo "$CONF"
read -r _
guest_initrd "$PLUGIN" "$KUBELET"
guest_boot 1024
# Whoever started this looks at the cluster before it goes.
exec 1>&-
cat >/dev/null
