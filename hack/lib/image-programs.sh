#!/usr/bin/env bash
# Inside the image's build: puts all programs into directory $3, without what only a debugger needs.
# $1: source (compiled here) or prebuilt (from target/image/bin). $2: debug or release.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
PROGRAMS=(aldaas aldaas-csi aldaas-fuse aldaas-ingest aldaas-restore aldaas-webhook)
from=$1 profile=$2 into=$3

mkdir -p "$into"
case "$from" in
  source)
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -y -q --no-install-recommends cmake libclang-dev librados-dev librbd-dev pkg-config
    # shellcheck source=common.sh
    . hack/lib/common.sh
    # shellcheck source=build.sh
    . hack/lib/build.sh
    flags=(--locked --bins)
    [ "$profile" = debug ] || flags+=(--release)
    cargo build "${flags[@]}" -p aldaas -p aldaas-csi -p aldaas-ingest -p aldaas-volume -p aldaas-webhook
    as_static build "${flags[@]}"
    for program in "${PROGRAMS[@]}"; do
      built=target/$profile/$program
      [ -e "$built" ] || built=target/$STATIC_TARGET/$profile/$program
      strip --strip-debug -o "$into/$program" "$built"
    done
    ;;
  prebuilt)
    built=bin # what hack/image gives to the build
    [ -d $built ] || built=target/image/bin
    for program in "${PROGRAMS[@]}"; do
      [ -e "$built/$program" ] || { echo "there is no $built/$program: hack/image build --prebuilt makes it" >&2; exit 1; }
      cp -p "$built/$program" "$into/$program"
    done
    ;;
  *) echo "PROGRAMS=$from: source or prebuilt" >&2; exit 1 ;;
esac
chmod 755 "$into"/*
