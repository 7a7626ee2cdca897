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
