# shellcheck shell=bash
# How the programs are built. Sourced after common.sh.
#
# aldaas-restore is static, for it runs inside images that hold a database engine and little else;
# everything that talks to Ceph links librbd. So the two are built with different flags.

STATIC_TARGET=x86_64-unknown-linux-gnu

# Runs cargo for aldaas-restore alone: as_static "build" --bins
as_static() {
  local subcommand
  read -ra subcommand <<<"$1"
  RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" \
    cargo "${subcommand[@]}" --target "$STATIC_TARGET" -p aldaas-restore "${@:2}"
}

# Runs cargo for everything else.
as_linked() {
  local subcommand
  read -ra subcommand <<<"$1"
  cargo "${subcommand[@]}" --workspace --exclude aldaas-restore "${@:2}"
}

# Runs cargo for everything else, with the points at which tests kill programs. What is built for the tests is built with these
# features and no others, so that no dependency is compiled twice.
as_tested() {
  local features
  features=$(cargo metadata --format-version 1 --no-deps | /usr/bin/python3 -c '
import json, sys
packages = json.load(sys.stdin)["packages"]
print(",".join(p["name"] + "/failpoints" for p in packages if "failpoints" in p["features"] and p["name"] != "aldaas-restore"))')
  as_linked "$1" --features "$features" "${@:2}"
}

# Where cargo puts what it builds.
target_dir() {
  cargo metadata --format-version 1 --no-deps |
    /usr/bin/python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])'
}

# Builds all programs of profile $1 (debug or release), or those of the release packages "${@:2}" alone, and puts the static one
# beside the others, where `aldaas` looks for it. Prints that directory. Those of debug are the ones that the tests use: what
# goes along with --bins has cargo choose the features that it chooses for the tests.
build_programs() {
  local dir packages=("${@:2}")
  # What future compilers will say of dependencies is nothing for whoever runs the demo.
  export CARGO_FUTURE_INCOMPAT_REPORT_FREQUENCY=never
  if [ "$1" = debug ]; then
    as_tested build --bins --examples >&2
    as_static build --bins --test install --all-features >&2
  else
    if [ ${#packages[@]} -gt 0 ]; then
      cargo build --bins --release "${packages[@]/#/--package=}" >&2
    else
      as_linked build --bins --release >&2
    fi
    as_static build --bins --release >&2
  fi
  dir=$(target_dir)
  ln -f "$dir/$STATIC_TARGET/$1/aldaas-restore" "$dir/$1/aldaas-restore"
  echo "$dir/$1"
}
