# shellcheck shell=bash
# Takes away all that a cluster directory $D holds, half-made or broken as it may be.
# Sourced by hack/dev after common.sh and cluster.sh.

# Mount points below directory $1, deepest first.
mounts_below() {
  awk -v d="$1/" 'index($5 "/", d) == 1 {print $5}' /proc/self/mountinfo | sort -r |
    while IFS= read -r path; do printf '%b\n' "$path"; done
}

# The first line of file $1 as $LINE, without a program: there are hundreds of processes and devices to look at.
line_of() { LINE=''; { IFS= read -r LINE <"$1"; } 2>/dev/null || [ -n "$LINE" ]; }

# Loop devices whose backing file is below directory $1.
loops_below() {
  local file LINE
  for file in /sys/block/loop*/loop/backing_file; do
    line_of "$file" || continue
    case "$LINE" in "$1"/*) file=${file#/sys/block/}; echo "/dev/${file%%/*}" ;; esac
  done
}

# Kernel RBD devices of the cluster with fsid $1, as ids.
krbd_of() {
  local file LINE
  for file in /sys/bus/rbd/devices/*/cluster_fsid; do
    line_of "$file" || continue
    [ "$LINE" = "$1" ] || continue
    file=${file%/cluster_fsid}
    echo "${file##*/}"
  done
}

# Pids of processes that belong to directory $1: programs of ours, of Ceph or of Postgres with an argument
# below it. A user's editor or pager on a file of it is not ours to end.
processes_of() {
  local dir pid LINE
  for dir in /proc/[0-9]*; do
    pid=${dir#/proc/}
    line_of "$dir/comm" || continue
    case "$LINE" in
      aldaas* | ceph* | rados* | rbd* | postgres) ;;
      *) continue ;;
    esac
    [ "$pid" != $$ ] && alive "$pid" && names_directory "$pid" "$1" && echo "$pid"
  done
  return 0
}

# What is left of directory $1, one line each; nothing when it is gone without a trace.
leftovers() {
  local pid
  mounts_below "$1" | sed 's/^/mount /'
  loops_below "$1" | sed 's/^/loop device /'
  for pid in $(processes_of "$1"); do echo "process $pid: $(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline")"; done
  [ ! -e "$1" ] || echo "directory $1"
}

# ---- taking it away --------------------------------------------------------------------------

# Processes that keep a mount busy: their directory, root or an open file is below $1.
holders_of() {
  as_root find /proc/[0-9]*/cwd /proc/[0-9]*/root /proc/[0-9]*/exe /proc/[0-9]*/fd \
    -maxdepth 1 \( -lname "$1" -o -lname "$1/*" \) 2>/dev/null | cut -d/ -f3 | sort -u || true
}

# Unmounts $1 within $2 seconds. A file system whose server hangs would hold us for ever, so the
# work is left to the background and watched.
unmount() {
  local pid tries=$(($2 * 20))
  as_root umount "$1" 2>/dev/null &
  pid=$!
  while [ $((tries -= 1)) -gt 0 ] && alive "$pid"; do sleep 0.05; done
  [ $tries -gt 0 ] && wait $pid
}

is_fuse() { awk -v m="$1" '$5 == m { for (i = 7; $i != "-"; i++); if ($(i + 1) ~ /^fuse/) found = 1 } END { exit !found }' /proc/self/mountinfo; }

# Makes the kernel answer every request to the FUSE mounts below $1 with an error. A forced unmount
# does that even where it doesn't get to unmount.
abort_fuse() {
  local path
  while read -r path; do
    ! is_fuse "$path" || as_root umount -f "$path" 2>/dev/null || true
  done < <(mounts_below "$1")
}

# Ends the processes of $1 except FUSE servers: while those serve, the rest can stop cleanly.
end_programs() {
  local pid name
  for pid in $(processes_of "$1"); do
    name=$(cat "/proc/$pid/comm" 2>/dev/null) || continue
    case "$name" in
      aldaas-fuse | ceph-* | radosgw) continue ;;
      postgres) kill -QUIT "$pid" 2>/dev/null ;; # at once: nobody wants this data any more
    esac
    stop_process "$pid" 5
  done
}

# Unmounts what is below $1: volumes only, or all. In the end nothing can hold us: who sits in a
# volume is killed, and where the storage hangs, its requests are failed.
unmount_volumes() {
  local path
  while read -r path; do
    [ "$2" = all ] || ! is_fuse "$path" || continue
    unmount "$path" 10 && continue
    holders_of "$path" | grep -vx $$ | xargs -r kill -KILL 2>/dev/null || true
    unmount "$path" 1 && continue
    abort_fuse "$1"
    unmount "$path" 5 || as_root umount -l "$path" || true
  done < <(mounts_below "$1")
}

detach_loops() {
  local device tries=100
  for device in $(loops_below "$1"); do as_root losetup -d "$device" 2>/dev/null || true; done
  while [ -n "$(loops_below "$1")" ] && [ $((tries -= 1)) -gt 0 ]; do sleep 0.05; done
}

detach_krbd() {
  local fsid id
  fsid=$(sed -n 's/^fsid = //p' "$1/ceph.conf" 2>/dev/null) || return 0
  for id in $(krbd_of "${fsid:-none}"); do
    echo "$id force" | as_root tee /sys/bus/rbd/remove_single_major >/dev/null 2>&1 ||
      echo "$id force" | as_root tee /sys/bus/rbd/remove >/dev/null || true
  done
}

end_fuse() {
  local pid
  for pid in $(processes_of "$1"); do
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != aldaas-fuse ] || stop_process "$pid" 3
  done
}

# The daemons' data goes away with them, so there is nothing to flush: they are killed.
end_daemons() {
  local pid pids
  pids=$(processes_of "$1")
  for pid in $pids; do kill -KILL "$pid" 2>/dev/null; done
  # One that is ending has no command line any more, but is still there.
  for pid in $pids; do stop_process "$pid" 5; done
}

remove_everything() {
  local left tries=20
  set +e # each step does what it can; what counts is what is left at the end
  if [ -d "$D" ]; then
    [ -e "$D/.aldaas-dev" ] || [ -z "$(ls -A "$D")" ] || die "$D was not made by hack/dev; not touched"
  fi
  end_programs "$D"
  unmount_volumes "$D" volumes
  detach_loops "$D"
  detach_krbd "$D"
  end_fuse "$D"
  unmount_volumes "$D" all
  end_daemons "$D"
  rm -rf --one-file-system "$D" 2>/dev/null || as_root rm -rf --one-file-system "$D" || true
  while left=$(leftovers "$D") && [ -n "$left" ] && [ $((tries -= 1)) -gt 0 ]; do sleep 0.1; done
  set -e
  [ -z "$left" ] || { say "left over in spite of all:"; say "$left"; return 1; }
}
