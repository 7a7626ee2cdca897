# shellcheck shell=bash
# The node plugin on a development cluster without a Kubernetes. Sourced by hack/csi-up and hack/csi-down after common.sh.
#
# $D/csi/csi.sock       where CSI is served            $D/csi/plugin.log   what it says
# $D/csi/objects.json   the Kubernetes objects it sees $D/csi/plugin.pid

plugin_dir() { echo "$(dirname "$("$HACK/dev" where)")/csi"; }

# The pid of the plugin when it runs, else nothing and a failure.
plugin_pid() {
  local pid
  pid=$(cat "$D/csi/plugin.pid" 2>/dev/null) || return 1
  [ -n "$pid" ] && grep -qzxF "unix://$D/csi/csi.sock" "/proc/$pid/cmdline" 2>/dev/null || return 1
  echo "$pid"
}

# Whatever a CSI client published and did not take back: mounts of volumes of this plugin anywhere else on this machine.
published() {
  awk -v d="$D/" '
    { path[NR] = $5; device[NR] = $3; if (index($5 "/", d) == 1 && $3 !~ /^0:/) ours[$3] }
    END { for (i in path) if (device[i] in ours && index(path[i] "/", d) != 1) print path[i] }
  ' /proc/self/mountinfo | sort -r | while IFS= read -r path; do printf '%b\n' "$path"; done
}
