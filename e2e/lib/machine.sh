# shellcheck shell=bash
# The machine that the node runs on: namespaces of its own for mounts, network, processes, cgroups and its name, below directory $D.
# Sourced by e2e/cluster after common.sh.
#
# So whatever a Kubernetes leaves all over a machine (mounts, bridges, iptables, processes) goes at once when its first process
# ends, several clusters never meet, and kubelet may use the paths that everybody expects. Disk, devices and Ceph are this machine's.
#
# $D/run/machine.pid   the machine's first process, as seen from outside

# ---- its processes ---------------------------------------------------------------------------

# The first process of the machine when it runs, else nothing and a failure.
machine() {
  local pid
  pid=$(cat "$D/run/machine.pid" 2>/dev/null) || return 1
  # After a reboot the number may be anybody's.
  grep -qzxF "$D" "/proc/$pid/cmdline" 2>/dev/null || return 1
  echo "$pid"
}

# Replaces this process by "$@" inside the machine. To be called in a subshell.
enter() {
  local pid
  pid=$(machine) || die "the cluster in $D does not run: e2e/cluster up --dir $D"
  join_cgroups
  exec nsenter --target "$pid" --mount --net --pid --cgroup --uts --ipc --wd=/ -- "$@"
}

in_machine() { (enter "$@"); }

# The pid of daemon $1 when it runs, else nothing and a failure.
daemon_pid() {
  local pid first
  pid=$(cat "$D/run/$1.pid" 2>/dev/null) && first=$(machine) || return 1
  [ -e "/proc/$pid/ns/pid" ] && [ "$(readlink "/proc/$pid/ns/pid")" = "$(readlink "/proc/$first/ns/pid")" ] || return 1
  [ "$(sed -E 's/^.*\) (.).*$/\1/' "/proc/$pid/stat" 2>/dev/null)" != Z ] || return 1
  echo "$pid"
}

# The only child of process $1, waited for, once that has become the program $2.
child_of() {
  local tries=500 child
  until [ "$(cat "/proc/$1/comm" 2>/dev/null)" = "$2" ] && child=$(cat "/proc/$1/task/$1/children") && [ -n "$child" ]; do
    [ $((tries -= 1)) -gt 0 ] && [ -d "/proc/$1" ] || return 1
    sleep 0.02
  done
  echo "${child%% *}"
}

# Starts "$@" (after the name $1) in the machine, in a session of its own, so that it outlives the shell and its terminal.
start_in_machine() {
  local name=$1 child
  shift
  (enter setsid "$@") </dev/null >>"$D/log/$name.log" 2>&1 8>&- 9>&- &
  child=$(child_of $! nsenter) || { say "$name did not start; see $D/log/$name.log"; return 1; }
  echo "$child" >"$D/run/$name.pid"
  disown
}

# Stops daemon $1: asks, and kills after $2 seconds.
stop_in_machine() {
  local pid tries=$(($2 * 20))
  while pid=$(daemon_pid "$1"); do
    if [ $tries -eq $(($2 * 20)) ]; then kill -TERM "$pid" 2>/dev/null || true; fi
    if [ $((tries -= 1)) -eq 0 ]; then kill -KILL "$pid" 2>/dev/null || true; fi
    [ $tries -gt -100 ] || { say "$1 (process $pid) cannot be killed"; return 1; }
    sleep 0.05
  done
  rm -f "$D/run/$1.pid"
}

# ---- its cgroups -----------------------------------------------------------------------------

# The directories, one for each hierarchy, that the machine's processes are in.
cgroups_of_machine() { cat "$D/cgroups"; }

# Puts this process there. With cgroup v2 only the leaves may hold processes.
join_cgroups() {
  local dir
  for dir in $(cgroups_of_machine); do
    if [ -d "$dir/first" ]; then dir=$dir/first; fi
    echo "$BASHPID" >"$dir/cgroup.procs"
  done
}

# Where this machine has its cgroup hierarchies mounted, the ones with controllers.
hierarchies() {
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then echo /sys/fs/cgroup; return; fi
  awk '{ for (i = 7; $i != "-"; i++); if ($(i + 1) == "cgroup") print $5 }' /proc/self/mountinfo | grep ^/sys/fs/cgroup/
}

make_cgroups() {
  local top dir
  : >"$D/cgroups"
  while read -r top; do
    dir=$top/aldaas-e2e-$NET
    mkdir -p "$dir"
    echo "$dir" >>"$D/cgroups"
    if [ -e "$dir/cpuset.cpus" ] && [ ! -e "$dir/cgroup.controllers" ]; then
      cat "$top/cpuset.cpus" >"$dir/cpuset.cpus"
      cat "$top/cpuset.mems" >"$dir/cpuset.mems"
    fi
  done < <(hierarchies)
}

# A cgroup whose last process is just ending is busy for a moment.
remove_cgroups() {
  local dir tries=100
  [ -e "$D/cgroups" ] || return 0
  for dir in $(cgroups_of_machine); do
    case "$dir" in */aldaas-e2e-*) ;; *) continue ;; esac
    until [ ! -d "$dir" ]; do
      find "$dir" -depth -type d -exec rmdir {} + 2>/dev/null || true
      [ ! -d "$dir" ] || { [ $((tries -= 1)) -gt 0 ] || break; sleep 0.05; }
    done
  done
}

# ---- its network -----------------------------------------------------------------------------

# 10.$NET.0.0/16: pods in .0.0/24, services in .128.0/20, the cable between here and there in .255.0/30.
# Prints a number that no route of this machine meets. Several clusters may start at once.
choose_net() {
  local n taken
  taken=$({ ip -4 route show table all; ip -4 addr; } | { grep -oE '\b10\.[0-9]+\.' || true; } | cut -d. -f2 | sort -u)
  for n in $(shuf -i 64-250); do
    grep -qx "$n" <<<"$taken" || { echo "$n"; return; }
  done
  die "no network 10.64.0.0/16 to 10.250.0.0/16 is free here"
}

# There is a way to this machine and no further: what looks for a cloud finds none at once.
connect_machine() {
  local first=$1
  ip link add "ald$NET" type veth peer name eth0 netns "/proc/$first/ns/net"
  ip addr add "$HOST_IP/30" dev "ald$NET"
  ip link set "ald$NET" up
  in_machine ip link set lo up
  in_machine ip addr add "$NODE_IP/30" dev eth0
  in_machine ip link set eth0 up
  # A Service's address has to lead somewhere before kube-proxy can turn it into a pod's.
  in_machine ip route add "10.$NET.0.0/16" via "$HOST_IP"
  ip route add "10.$NET.0.0/16" via "$NODE_IP"
}

# ---- up and down -----------------------------------------------------------------------------

start_machine() {
  local pid tries=200
  mkdir -p "$D"/{run,log,state}
  # Pods that want the kernel's modules make it.
  [ -e /lib/modules ] || touch "$D/no-modules"
  make_cgroups
  (
    join_cgroups
    exec setsid unshare --mount --net --pid --fork --kill-child --cgroup --uts --ipc -- bash "$E2E/lib/first-process" "$D"
  ) </dev/null >>"$D/log/machine.log" 2>&1 8>&- 9>&- &
  pid=$(child_of $! unshare) || { cat "$D/log/machine.log" >&2; die "the machine did not start"; }
  disown
  until [ -e "$D/run/ready" ]; do
    if [ $((tries -= 1)) -le 0 ] || [ ! -d "/proc/$pid" ]; then
      cat "$D/log/machine.log" >&2
      die "the machine did not start"
    fi
    sleep 0.02
  done
  echo "$pid" >"$D/run/machine.pid"
  connect_machine "$pid"
}

# Loop devices whose file a FUSE server in the machine serves: they outlive it, and nobody could tell whose they were.
loops_of_machine() {
  local first
  first=$(machine) || return 0
  losetup --list --noheadings --raw -O NAME,BACK-MAJ:MIN 2>/dev/null | grep -wFf <(
    awk '{ for (i = 7; $i != "-"; i++); if ($(i + 1) ~ /^fuse/) print $3 }' "/proc/$first/mountinfo"
  ) | cut -d' ' -f1 || true
}

end_machine() {
  local first loops device tries=200
  loops=$(loops_of_machine)
  if first=$(machine); then
    kill -KILL "$first"
    # Its end waits for the end of all others.
    while [ -d "/proc/$first" ] && [ $((tries -= 1)) -gt 0 ]; do sleep 0.05; done
  fi
  for device in $loops; do losetup -d "$device" 2>/dev/null || true; done
  [ ! -e "$D/no-modules" ] || rmdir /lib/modules 2>/dev/null || true
  ip link del "ald$NET" 2>/dev/null || true
  remove_cgroups
}

# What is left of the machine, one line each.
left_of_machine() {
  local dir first
  ! first=$(machine) || echo "process $first"
  for dir in $(cgroups_of_machine 2>/dev/null); do [ ! -d "$dir" ] || echo "cgroup $dir"; done
  ! ip link show "ald$NET" >/dev/null 2>&1 || echo "network interface ald$NET"
}
