#!/usr/bin/env bash
# Attaches images through the kernel's own RBD client, in a small guest with Debian's kernel: this machine's may have
# none. A cluster of its own listens on an address of its own, since the guest can't reach the host's 127.0.0.1.
#
# Wants: BY_HAND, FUSE (paths of the programs), HACK (path of hack/). Leaves nothing but the cached kernel.
set -euo pipefail

: "${BY_HAND:?}" "${FUSE:?}" "${HACK:?}"
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/aldaas
W=$(mktemp -d /tmp/krbd.XXXXXX)
D=$W/c
LINK=krbd$(($$ % 100000))
ADDR=10.$((64 + $$ / 65536 % 64)).$(($$ / 256 % 256)).$(($$ % 256))

need() {
  local program
  for program in qemu-system-x86_64 cpio busybox depmod dpkg-deb ip; do
    command -v "$program" >/dev/null ||
      { echo "needs $program: apt install qemu-system-x86 cpio busybox-static kmod dpkg iproute2" >&2; exit 1; }
  done
}

end() {
  local status=$?
  trap - EXIT
  [ ! -e "$D/ceph.conf" ] || "$HACK/dev" down --dir "$D" >"$W/down.log" 2>&1 || { cat "$W/down.log" >&2; status=1; }
  ip link del "$LINK" 2>/dev/null || true
  rm -rf --one-file-system "$W"
  rm -f "/tmp/.${W##*/}.lock"
  exit "$status"
}

# Debian's kernel, unpacked and not installed; downloaded once.
kernel() {
  mkdir -p "$CACHE"
  exec 8>"$CACHE/kernel.lock"
  flock 8
  K=$(find "$CACHE" -maxdepth 1 -type d -name 'linux-image-*' ! -name '*.new' | sort -V | tail -1)
  if [ -z "$K" ]; then
    local package new
    package=$(apt-cache depends linux-image-amd64 | awk '$1 == "Depends:" { print $2; exit }')
    [ -n "$package" ] || { echo "apt knows no linux-image-amd64: apt update" >&2; exit 1; }
    K=$CACHE/$package new=$CACHE/$package.new
    rm -rf "$new" && mkdir -p "$new"
    (cd "$W" && apt-get -q download "$package" >&2)
    dpkg-deb -x "$W"/linux-image-*.deb "$new"
    rm "$W"/linux-image-*.deb
    mv "$new" "$K"
  fi
  exec 8>&-
  VMLINUZ=$(echo "$K"/boot/vmlinuz-*)
  MODULES=$(echo "$K"/lib/modules/*)
}

cluster() {
  ip link add "$LINK" type bridge
  ip addr add "$ADDR/32" dev "$LINK"
  ip link set "$LINK" up
  "$HACK/dev" up --dir "$D" --addr "$ADDR" --no-s3 --osd-size 4G >"$W/up.log" 2>&1 || { cat "$W/up.log" >&2; exit 1; }
  CONF=$D/ceph.conf
}

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

initrd() {
  local root=$W/root version module library
  version=$(basename "$MODULES")
  mkdir -p "$root"/{bin,sbin,proc,sys,dev,run,etc/ceph,tmp} "$root/lib/modules/$version"
  cp "$(command -v busybox)" "$root/bin/busybox"
  cp "$BY_HAND" "$root/bin/by_hand"
  ldd "$BY_HAND" | grep -o '/[^ ]*' | while read -r library; do
    mkdir -p "$root$(dirname "$library")" && cp -L "$library" "$root$library"
  done
  # The program must not need librbd where the kernel does the work.
  ! ldd "$BY_HAND" | grep -E 'librbd|librados' || { echo "$BY_HAND links librbd" >&2; exit 1; }
  (cd "$MODULES" && for module in kernel/{crypto,arch/x86/crypto,lib,net/ceph,net/dns_resolver,fs/ext4,fs/jbd2,fs/xfs,fs/mbcache.ko} \
    kernel/drivers/block/rbd.ko kernel/drivers/net/ethernet/intel/e1000; do
    [ ! -e "$module" ] || cp -r --parents "$module" "$root/lib/modules/$version/"
  done
  cp modules.order modules.builtin "$root/lib/modules/$version/")
  depmod -b "$root" "$version"
  cp "$CONF" "$root/etc/ceph/ceph.conf"
  # The keyring where the guest will look for it.
  local keyring
  keyring=$(sed -n 's/^ *keyring *= *//p' "$CONF" | head -1)
  mkdir -p "$root$(dirname "$keyring")" && cp "$keyring" "$root$keyring"
  guest_init >"$root/init"
  chmod +x "$root/init"
  (cd "$root" && find . | cpio -o -H newc --quiet) >"$W/initrd"
}

guest_init() {
  cat <<'GUEST'
#!/bin/busybox sh
/bin/busybox --install -s /bin
ln -s /bin/busybox /sbin/modprobe
export PATH=/bin:/sbin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
echo 1 >/proc/sys/kernel/printk
fail() { echo "GUEST FAILED: $*"; dmesg | tail -20; poweroff -f; }
modprobe e1000 || fail "no network driver"
for m in ext4 xfs; do modprobe $m || fail "no $m"; done
ifconfig lo up; ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up; route add default gw 10.0.2.2
hand() { by_hand --run-dir /run/aldaas "$@"; }
clients() { cat /sys/bus/rbd/devices/*/client_id | sort -u | wc -l; }
none_mapped() { [ -z "$(ls /sys/bus/rbd/devices)" ] || fail "still mapped: $(ls /sys/bus/rbd/devices)"; }
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
[ -z "$(find /run/aldaas -mindepth 1)" ] || fail "left: $(find /run/aldaas)"
echo GUEST PASSED
poweroff -f
GUEST
}

boot() {
  timeout 240 qemu-system-x86_64 -accel tcg -cpu max -m 512 -smp 1 -display none -no-reboot -monitor none \
    -serial "file:$W/console" -kernel "$VMLINUZ" -initrd "$W/initrd" -append "console=ttyS0 quiet panic=-1 random.trust_cpu=on" \
    -netdev user,id=n -device e1000,netdev=n </dev/null || true
  cat "$W/console"
  grep -q "GUEST PASSED" "$W/console"
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

trap end EXIT
need
kernel
cluster
images
initrd
boot
check_from_here
echo "krbd works"
