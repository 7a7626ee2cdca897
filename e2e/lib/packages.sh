# shellcheck shell=bash
# The programs of the node, and where they are. Sourced by e2e/cluster and e2e/run after common.sh and kubernetes.sh.

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/aldaas
# These start no service. containerd does, and gets in the way of a Docker, so it is only unpacked.
NODE_PACKAGES=(runc containernetworking-plugins iptables conntrack ethtool mmdebstrap buildah busybox-static curl)

need_programs() {
  need_kube_programs "${KUBE_ALL_PROGRAMS[@]}"
  "$HACK/deps" --quiet "${NODE_PACKAGES[@]}"
  need_containerd
  find_programs || die "the programs of the node are not there"
}

# Sets BIN and CONTAINERD, and PATH for the node.
find_programs() {
  BIN=$(kube_programs "${KUBE_ALL_PROGRAMS[@]}") || return 1
  if [ -x "$CACHE/containerd/usr/bin/containerd" ]; then CONTAINERD=$CACHE/containerd/usr/bin
  else CONTAINERD=$(dirname "$(command -v containerd)") || return 1; fi
  # shellcheck disable=SC2034 # for e2e/cluster and e2e/run
  NODE_PATH=$CONTAINERD:$BIN:/usr/sbin:/usr/bin:/sbin:/bin
}

need_containerd() {
  local new=$CACHE/containerd.new
  [ ! -x "$CACHE/containerd/usr/bin/containerd" ] || return 0
  ! command -v containerd >/dev/null || return 0
  mkdir -p "$CACHE"
  (
    flock 7
    [ ! -x "$CACHE/containerd/usr/bin/containerd" ] || exit 0
    say "getting containerd"
    rm -rf "$new"
    mkdir -p "$new/package"
    cd "$new/package" || exit
    apt-get -q -o APT::Sandbox::User= download containerd >../log 2>&1 || { cat ../log >&2; die "apt-get has no containerd"; }
    dpkg-deb -x ./*.deb "$new"
    rm -rf package ../log
    mv "$new" "$CACHE/containerd"
  ) 7>>"$CACHE/containerd.lock"
}
