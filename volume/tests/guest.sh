# shellcheck shell=bash
# A small guest with Debian's kernel, which has rbd where this machine's may have none, and a cluster that it reaches: one of its
# own on an address of its own, since a guest can't reach the host's 127.0.0.1. Sourced; wants HACK (path of hack/).
#
#   guest_kernel; guest_cluster; guest_initrd PROGRAM...; guest_boot MIB
#
# The caller writes guest_init, which prints the guest's /init. It ends with `passed`, or with `fail WHY` anywhere.
# What is made is taken away at exit; the unpacked kernel stays in the cache.

: "${HACK:?}"
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/aldaas
W=$(mktemp -d /tmp/krbd.XXXXXX)
D=$W/c
LINK=krbd$(($$ % 100000))
ADDR=10.$((64 + $$ / 65536 % 64)).$(($$ / 256 % 256)).$(($$ % 256))

guest_need() {
  local program
  for program in qemu-system-x86_64 cpio busybox depmod dpkg-deb ip; do
    command -v "$program" >/dev/null ||
      { echo "needs $program: apt install qemu-system-x86 cpio busybox-static kmod dpkg iproute2" >&2; exit 1; }
  done
}

guest_end() {
  local status=$?
  trap - EXIT
  [ ! -e "$D/ceph.conf" ] || "$HACK/dev" down --dir "$D" >"$W/down.log" 2>&1 || { cat "$W/down.log" >&2; status=1; }
  ip link del "$LINK" 2>/dev/null || true
  rm -rf --one-file-system "$W"
  rm -f "/tmp/.${W##*/}.lock"
  exit "$status"
}

# Debian's kernel, unpacked and not installed; downloaded once.
guest_kernel() {
  guest_need
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
  [ -e "$K/boot/vmlinux" ] ||
    guest_unpack "$(find "$K/boot" -name 'vmlinuz-*' | sort -V | tail -1)" "$K/boot/vmlinux"
  exec 8>&-
  KERNEL=$K/boot/vmlinux
  MODULES=$(echo "$K"/lib/modules/*)
}

# The kernel as it is in memory: unpacking itself takes longer than all the rest of its start, where each instruction is emulated.
guest_unpack() {
  /usr/bin/python3 - "$1" >"$2.new" <<'PYTHON'
import lzma, sys
packed = open(sys.argv[1], "rb").read()
at = packed.find(b"\xfd7zXZ\0")
# One that is packed otherwise boots as it is.
sys.stdout.buffer.write(lzma.LZMADecompressor().decompress(packed[at:]) if at >= 0 else packed)
PYTHON
  mv "$2.new" "$2"
}

guest_cluster() {
  ip link add "$LINK" type bridge
  ip addr add "$ADDR/32" dev "$LINK"
  ip link set "$LINK" up
  "$HACK/dev" up --dir "$D" --addr "$ADDR" --no-s3 --osd-size 4G >"$W/up.log" 2>&1 || { cat "$W/up.log" >&2; exit 1; }
  CONF=$D/ceph.conf
}

# The root of the guest, with these programs and what they link.
guest_initrd() {
  local root=$W/root version module program library keyring
  version=$(basename "$MODULES")
  mkdir -p "$root"/{bin,sbin,proc,sys,dev,run,etc/ceph,tmp} "$root/lib/modules/$version"
  cp "$(command -v busybox)" "$root/bin/busybox"
  for program in "$@"; do
    # Without what only a debugger reads: it is loaded into the guest's memory.
    strip -o "$root/bin/$(basename "$program")" "$program"
    ldd "$program" | grep -o '/[^ ]*' | while read -r library; do
      mkdir -p "$root$(dirname "$library")" && cp -L "$library" "$root$library"
    done
  done
  (cd "$MODULES" && for module in kernel/{crypto,arch/x86/crypto,lib,net/ceph,net/dns_resolver,fs/ext4,fs/jbd2,fs/xfs,fs/mbcache.ko} \
    kernel/drivers/block/rbd.ko kernel/drivers/net/ethernet/intel/e1000; do
    [ ! -e "$module" ] || cp -r --parents "$module" "$root/lib/modules/$version/"
  done
  cp modules.order modules.builtin "$root/lib/modules/$version/")
  depmod -b "$root" "$version"
  cp "$CONF" "$root/etc/ceph/ceph.conf"
  # The keyring where the guest will look for it.
  keyring=$(sed -n 's/^ *keyring *= *//p' "$CONF" | head -1)
  mkdir -p "$root$(dirname "$keyring")" && cp "$keyring" "$root$keyring"
  { guest_begin; guest_init; } >"$root/init"
  chmod +x "$root/init"
  (cd "$root" && find . | cpio -o -H newc --quiet) >"$W/initrd"
}

# What every guest begins with.
guest_begin() {
  cat <<'GUEST'
#!/bin/busybox sh
/bin/busybox --install -s /bin
ln -s /bin/busybox /sbin/modprobe
export PATH=/bin:/sbin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
echo 1 >/proc/sys/kernel/printk
fail() { echo "GUEST FAILED: $*"; dmesg | tail -20; poweroff -f; }
passed() { echo GUEST PASSED; poweroff -f; }
modprobe e1000 || fail "no network driver"
for m in ext4 xfs; do modprobe $m || fail "no $m"; done
ifconfig lo up; ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up; route add default gw 10.0.2.2
none_mapped() { [ -z "$(ls /sys/bus/rbd/devices)" ] || fail "still mapped: $(ls /sys/bus/rbd/devices)"; }
GUEST
}

# Runs it, with so many MiB of memory.
guest_boot() {
  timeout 240 qemu-system-x86_64 -accel tcg -cpu max -m "$1" -smp 1 -display none -no-reboot -monitor none \
    -serial "file:$W/console" -kernel "$KERNEL" -initrd "$W/initrd" -append "console=ttyS0 quiet panic=-1 random.trust_cpu=on mitigations=off cryptomgr.notests tsc=reliable" \
    -netdev user,id=n -device e1000,netdev=n </dev/null || true
  cat "$W/console"
  grep -q "GUEST PASSED" "$W/console"
}

trap guest_end EXIT
