# shellcheck shell=bash
# The programs of Kubernetes: kube-apiserver and etcd, or all that a node needs. Sourced after common.sh.
#
# From $KUBEBUILDER_ASSETS, else /usr/local/kubebuilder/bin, else built once from Debian's source package into the user's
# cache. Nothing is installed on the machine for that: compiler and source are unpacked below the cache and removed again.
# What the cache holds already is not built again.

KUBE_VERSION=1.20.2
KUBE_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/aldaas/kubernetes-$KUBE_VERSION
# shellcheck disable=SC2034 # for hack/kube
KUBE_PROGRAMS=(kube-apiserver etcd)
# shellcheck disable=SC2034 # for e2e/cluster
KUBE_ALL_PROGRAMS=(kube-apiserver etcd kube-controller-manager kube-scheduler kubelet kube-proxy kubectl)

# Prints the directory that holds all of these programs (those of the API server where none is named); fails when there is none.
kube_programs() {
  local dir
  [ $# -gt 0 ] || set -- "${KUBE_PROGRAMS[@]}"
  for dir in ${KUBEBUILDER_ASSETS:+"$KUBEBUILDER_ASSETS"} /usr/local/kubebuilder/bin "$KUBE_CACHE/bin"; do
    if [ -z "$(lacking "$dir" "$@")" ]; then echo "$dir"; return; fi
  done
  return 1
}

# Which of the programs $2... directory $1 lacks.
lacking() {
  local dir=$1 program
  for program in "${@:2}"; do [ -x "$dir/$program" ] || echo "$program"; done
}

# Makes the programs where they are missing. Several may call this at once; one builds.
need_kube_programs() {
  [ $# -gt 0 ] || set -- "${KUBE_PROGRAMS[@]}"
  ! kube_programs "$@" >/dev/null || return 0
  mkdir -p "$KUBE_CACHE/bin"
  (
    flock 7
    if ! kube_programs "$@" >/dev/null; then
      mapfile -t wanted < <(lacking "$KUBE_CACHE/bin" "$@")
      build_kube_programs "${wanted[@]}"
    fi
  ) 7>>"$KUBE_CACHE/lock"
}

build_kube_programs() {
  local codename started log=$KUBE_CACHE/build.log
  codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
  [ "$codename" = bookworm ] || die "there is no $1 here, and only Debian 12 has a source to build it from:" \
    "put $* into one directory and name it in KUBEBUILDER_ASSETS"
  "$HACK/deps" --quiet
  started=$(now_ms)
  say "building $* $KUBE_VERSION once, which takes some minutes ($log)"
  rm -rf "$KUBE_CACHE/build"
  mkdir -p "$KUBE_CACHE/build"
  if ! (cd "$KUBE_CACHE/build" && set -e && fetch_kube_sources "$codename" && compile_kube "$@") >"$log" 2>&1 7>&-; then
    tail -n 20 "$log" >&2
    die "$* could not be built; all of it is in $log"
  fi
  rm -rf "$KUBE_CACHE/build"
  say "built in $(since "$started")"
}

# Apt with lists and sources of its own: the machine's stay as they are, and root is not needed.
private_apt() {
  apt-get -o Dir::Etc::sourcelist="$PWD/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::State::lists="$PWD/lists" -o Dir::Cache="$PWD/cache" -o Acquire::Languages=none \
    -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false -o APT::Sandbox::User= -q "$@"
}

# The source of kubernetes, Debian's Go and etcd, unpacked into the current directory. From where this machine has Debian.
fetch_kube_sources() {
  local mirror keys=/usr/share/keyrings/debian-archive-keyring.gpg package
  mirror=$(apt-get indextargets --format "\$(SITE) \$(RELEASE) \$(COMPONENT)" 'Created-By: Packages' |
    awk -v r="$1" '$2 == r && $3 == "main" { print $1; exit }')
  [ -n "$mirror" ] || die "this machine's apt has no sources for $1"
  printf "%s [signed-by=$keys] $mirror $1 main\n" deb deb-src >sources.list
  mkdir -p lists/partial cache/archives/partial
  private_apt update
  private_apt source --download-only kubernetes
  dpkg-source --no-check -x kubernetes_*.dsc source
  private_apt download golang-1.19-go golang-1.19-src etcd-server kubernetes-client \
    golang-github-modern-go-reflect2-dev
  for package in *.deb; do dpkg-deb -x "$package" root; done
  # The reflect2 that comes along reads maps as they were before Go 1.18, and crashes.
  rm -f source/vendor/github.com/modern-go/reflect2/*.{go,s}
  cp root/usr/share/gocode/src/github.com/modern-go/reflect2/*.{go,s} source/vendor/github.com/modern-go/reflect2
}

# Builds programs and puts them into the cache. etcd and kubectl come from Debian as they are.
compile_kube() {
  local root=$PWD/root program sources=() packaged=()
  for program in "$@"; do
    if [ -x "root/usr/bin/$program" ]; then packaged+=("root/usr/bin/$program"); else sources+=("cmd/$program"); fi
  done
  [ ${#packaged[@]} -eq 0 ] || install -m 755 "${packaged[@]}" "$KUBE_CACHE/bin"
  [ ${#sources[@]} -gt 0 ] || return 0
  mkdir -p shims home source/.go/src/k8s.io
  # The makefiles call rsync only to copy a program that was built.
  # shellcheck disable=SC2016 # the shim's own arguments
  printf '#!/bin/sh\nexec install -m 755 "$2" "$3"\n' >shims/rsync
  chmod +x shims/rsync
  ln -s ../../.. source/.go/src/k8s.io/kubernetes
  # A plain `go build` would miss what the makefiles generate. Of that only the OpenAPI code is not in the source.
  local go=(env -u GOFLAGS -u GOBIN GOROOT="$root/usr/lib/go-1.19" GOPATH="$PWD/source/.go" CGO_ENABLED=0 HOME="$PWD/home"
    GOFLAGS=-p=2 GOLDFLAGS='-s -w' PATH="$root/usr/lib/go-1.19/bin:$PWD/shims:$PATH" nice -n 10)
  "${go[@]}" make -C source gen_openapi
  (cd source && "${go[@]}" hack/make-rules/build.sh "${sources[@]}")
  install -m 755 "${sources[@]/#cmd/source/_output/bin}" "$KUBE_CACHE/bin"
}
