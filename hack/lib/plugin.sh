# shellcheck shell=bash
# The node plugin on a development cluster without a Kubernetes. Sourced by hack/csi-up and hack/csi-down after common.sh.
#
# $D/csi/csi.sock   where CSI is served   $D/csi/objects.json   the Kubernetes objects it sees   $D/csi/plugin.log   what it says

plugin_dir() { echo "$(dirname "$("$HACK/dev" where)")/csi"; }

# The pid of the plugin when it runs, else nothing and a failure.
plugin_pid() {
  local file
  for file in /proc/[0-9]*/cmdline; do
    [ "$(cat "${file%cmdline}comm" 2>/dev/null)" = aldaas-csi ] || continue
    grep -qzxF "unix://$D/csi/csi.sock" "$file" 2>/dev/null || continue
    file=${file#/proc/}
    echo "${file%/cmdline}"
    return 0
  done
  return 1
}

# Whatever a CSI client published and did not take back: mounts of volumes of this plugin anywhere else on this machine.
published() {
  awk -v d="$D/" '
    { path[NR] = $5; device[NR] = $3; if (index($5 "/", d) == 1 && $3 !~ /^0:/) ours[$3] }
    END { for (i in path) if (device[i] in ours && index(path[i] "/", d) != 1) print path[i] }
  ' /proc/self/mountinfo | sort -r | while IFS= read -r path; do printf '%b\n' "$path"; done
}
