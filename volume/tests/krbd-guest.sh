#!/usr/bin/env bash
# Attaches images through the kernel's own RBD client, in a small guest.
#
# Wants: BY_HAND, FUSE (paths of the programs), HACK (path of hack/). Leaves nothing but the cached kernel.
set -euo pipefail

: "${BY_HAND:?}" "${FUSE:?}"
# shellcheck source=guest.sh
. "$(dirname "${BASH_SOURCE[0]}")/guest.sh"

by_hand() { "$BY_HAND" --run-dir "$W/r" --ceph-conf "$CONF" --attach fuse --fuse-program "$FUSE" "$@"; }
rbd() { command rbd -c "$CONF" "$@"; }

images() {
  local kind size data
  rbd namespace create aldaas/golden
  rbd namespace create aldaas/clone
  for kind in ext4 xfs; do
    size=64M
    [ $kind = ext4 ] || size=320M
    rbd create --size $size "aldaas/golden/$kind"
    data=$(by_hand create aldaas golden $kind --filesystem $kind --golden $kind --database orders)
    echo "from the golden image" >"$data/hello"
    by_hand close aldaas golden $kind
    rbd snap create --no-progress "aldaas/golden/$kind@sealed"
    rbd clone --rbd-default-clone-format 2 "aldaas/golden/$kind@sealed" "aldaas/clone/$kind-a"
    rbd clone --rbd-default-clone-format 2 "aldaas/golden/$kind@sealed" "aldaas/clone/$kind-b"
  done
}

guest_init() {
  cat <<'GUEST'
hand() { by_hand --run-dir /run/aldaas "$@"; }
clients() { cat /sys/bus/rbd/devices/*/client_id | sort -u | wc -l; }
for kind in ext4 xfs; do
  for clone in $kind-a $kind-b; do
    opened=$(hand open aldaas clone $clone --golden $kind --database orders) || fail "open $clone"
    case $opened in /dev/rbd*) ;; *) fail "$clone is at $opened" ;; esac
    data=${opened#* }
    [ "$(cat $data/hello)" = "from the golden image" ] || fail "$clone holds other data"
    echo "written by the kernel to $clone" >$data/hello || fail "write $clone"
  done
  [ "$(ls /sys/bus/rbd/devices | wc -l)" = 2 ] || fail "two clones are not two devices"
  [ "$(clients)" = 1 ] || fail "two clones have $(clients) clients"
  hand open aldaas clone $kind-b --golden $kind --database orders --own-client 2>/run/shared && fail "a shared client is nobody's own"
  grep -q "client of its own" /run/shared || fail "shared says: $(cat /run/shared)"
  again=$(hand open aldaas clone $kind-b --golden $kind --database orders) || fail "open again"
  [ "$again" = "$opened" ] || fail "opening again gave $again, not $opened"
  cd $data; hand close aldaas clone $kind-b 2>/run/busy && fail "closed while busy"
  grep -q "pid $$" /run/busy || fail "busy says: $(cat /run/busy)"
  cd /
  hand list
  hand close aldaas clone $kind-a || fail "close $kind-a"
  hand close aldaas clone $kind-b || fail "close $kind-b"
  none_mapped
  for clone in $kind-a $kind-b; do
    opened=$(hand open aldaas clone $clone --golden $kind --database orders --own-client) || fail "open $clone with a client of its own"
    dd if=/dev/zero of=${opened#* }/lost bs=1M count=8 2>/dev/null
  done
  [ "$(clients)" = 2 ] || fail "two clones with clients of their own have $(clients)"
  hand close aldaas clone $kind-a || fail "close $kind-a"
  hand discard aldaas clone $kind-b || fail "discard $kind-b"
  none_mapped
  hand open aldaas clone $kind-a --golden other --database orders 2>/run/wrong && fail "wrong marker accepted"
  grep -q "marker of golden image $kind" /run/wrong || fail "wrong marker says: $(cat /run/wrong)"
  none_mapped
  opened=$(hand open aldaas golden $kind --golden $kind --database orders --read-only) || fail "open read-only"
  echo x 2>/dev/null >${opened#* }/x && fail "read-only was written"
  hand close aldaas golden $kind || fail "close read-only"
  none_mapped
done
# Mapped and mounted by somebody else: not adopted, not unmapped. An unmounted mapping of another cluster: not ours.
opened=$(hand open aldaas clone ext4-a --golden ext4 --database orders) || fail "open ext4-a"
by_hand --run-dir /run/other open aldaas clone ext4-a --golden ext4 --database orders 2>/run/elsewhere && fail "adopted"
grep -q "also mounted at /run/aldaas" /run/elsewhere || fail "elsewhere says: $(cat /run/elsewhere)"
echo on >${opened#* }/on || fail "the mapping was taken away"
sed 's/^fsid.*/fsid = 11111111-2222-3333-4444-555555555555/' /etc/ceph/ceph.conf >/run/other.conf
by_hand --run-dir /run/other --ceph-conf /run/other.conf close aldaas clone ext4-a || fail "close in another cluster"
echo on >${opened#* }/on || fail "another cluster's close took the mapping away"
hand close aldaas clone ext4-a || fail "close ext4-a"
none_mapped
hand open aldaas clone nobody --golden x --database orders 2>/run/nobody && fail "opened what does not exist"
grep -q "does not exist" /run/nobody || fail "nobody says: $(cat /run/nobody)"
hand close aldaas clone nobody || fail "close of unknown"
# A kernel whose block majors are used up, as it is on a module without single_major: said in words, and nothing is left.
rmmod rbd && modprobe rbd single_major=N || fail "no rbd without single_major"
monitors=$(sed -n 's/^ *mon host *=.*v1:\([0-9.:]*\).*/\1/p' /etc/ceph/ceph.conf)
secret=$(sed -n 's/^[[:space:]]*key *= *//p' $(sed -n 's/^ *keyring *= *//p' /etc/ceph/ceph.conf | head -1) | head -1)
maps=0
while echo "$monitors name=admin,secret=$secret,_pool_ns=golden,ro aldaas ext4 sealed" >/sys/bus/rbd/add 2>/run/used-up; do
  maps=$((maps + 1))
  [ $maps -lt 256 ] || fail "more than 255 majors"
done
[ $maps -gt 100 ] || fail "only $maps could be mapped: $(cat /run/used-up)"
hand open aldaas clone ext4-a --golden ext4 --database orders 2>/run/used-up && fail "mapped although $maps are"
grep -q "no free rbd device" /run/used-up || fail "with $maps mapped it says: $(cat /run/used-up)"
[ -z "$(find /run/aldaas -mindepth 1)" ] || fail "left: $(find /run/aldaas)"
ls /sys/bus/rbd/devices | head -n 1 >/sys/bus/rbd/remove
hand open aldaas clone ext4-a --golden ext4 --database orders >/dev/null || fail "open when there is a major again"
hand close aldaas clone ext4-a || fail "close ext4-a"
left=$(ls /sys/bus/rbd/devices | wc -l)
[ $left = $((maps - 1)) ] || fail "$left are mapped, not $((maps - 1))"
[ -z "$(find /run/aldaas -mindepth 1)" ] || fail "left: $(find /run/aldaas)"
echo "$maps images were mapped"
passed
GUEST
}

# What the guest wrote is there through librbd.
check_from_here() {
  local kind opened
  for kind in ext4 xfs; do
    opened=$(by_hand open aldaas clone "$kind-a" --golden "$kind" --database orders)
    [ "$(cat "${opened#* }/hello")" = "written by the kernel to $kind-a" ] || { echo "the guest's write is not in $kind-a" >&2; exit 1; }
    by_hand close aldaas clone "$kind-a"
  done
}

# The program must not need librbd where the kernel does the work.
! ldd "$BY_HAND" | grep -E 'librbd|librados' || { echo "$BY_HAND links librbd" >&2; exit 1; }
guest_kernel
guest_cluster
images
guest_initrd "$BY_HAND"
guest_boot 512
check_from_here
echo "krbd works"
