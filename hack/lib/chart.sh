# shellcheck shell=bash
# Where the real Helm engine is: PyPI carries it, and no machine of ours has the helm program. Sourced after common.sh.

HELM_DIR=${XDG_CACHE_HOME:-$HOME/.cache}/aldaas/helm
HELM_SDK=helm-python-sdk==0.2.2
HELM_SDK_SHA256=28cc13abaf134c3a7e37f070c939be8d9cdc9825c3c8b8b2d35161073bcd4578

# Makes $HELM_PYTHON, an interpreter that has the module helm_python.
need_helm() {
  HELM_PYTHON=$HELM_DIR/bin/python3
  [ "$(cat "$HELM_DIR/has" 2>/dev/null)" = "$HELM_SDK" ] && return
  mkdir -p "$HELM_DIR"
  (
    flock 9
    [ "$(cat "$HELM_DIR/has" 2>/dev/null)" != "$HELM_SDK" ] || exit 0
    say "getting the Helm engine"
    /usr/bin/python3 -m venv "$HELM_DIR"
    echo "$HELM_SDK --hash=sha256:$HELM_SDK_SHA256" |
      "$HELM_PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
        --only-binary :all: -r /dev/stdin
    echo "$HELM_SDK" >"$HELM_DIR/has"
  ) 9>"$HELM_DIR.lock"
}

# Makes $PROMTOOL, which checks alerts as Prometheus does: this machine's, else out of Debian's package, which is not installed.
need_promtool() {
  local dir=$HELM_DIR/prometheus
  PROMTOOL=$(command -v promtool || echo "$dir/usr/bin/promtool")
  export PROMTOOL
  [ ! -x "$PROMTOOL" ] || return 0
  command -v apt-get >/dev/null || die "promtool is missing: https://prometheus.io/download"
  say "getting promtool"
  mkdir -p "$dir"
  (
    flock 9
    cd "$dir" || exit
    [ ! -x "$PROMTOOL" ] || exit 0
    download_prometheus || { as_root apt-get -q update >&2 && download_prometheus; } || die "apt-get could not download prometheus"
    dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool
    rm prometheus_*.deb
  ) 9>"$dir.lock"
}

download_prometheus() { apt-get -q -o APT::Sandbox::User=root download prometheus >/dev/null 2>&1; }
