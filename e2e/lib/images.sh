# shellcheck shell=bash
# The images that the tests need beside our own: a pod's first process, and a Postgres like the official one. Made once from
# Debian's packages, without a registry. Sourced by e2e/cluster after common.sh and packages.sh.

# A file's name holds its recipe's hash, so that a changed recipe makes a new image.
image_file() { echo "$CACHE/images/$1-$(cat "$E2E/images/$1"* "$E2E/lib/image.py" | sha256sum | cut -c1-12).tar"; }
image_files() { image_file pause; image_file postgres; }

need_images() {
  local name
  mkdir -p "$CACHE/images"
  (
    flock 7
    for name in pause postgres; do
      [ -e "$(image_file $name)" ] || "make_$name" "$(image_file $name)"
    done
  ) 7>>"$CACHE/images/lock"
}

# An image with busybox and nothing else. It is what holds a pod's namespaces, and is good for a pod that only sleeps.
make_pause() {
  local root
  root=$(mktemp -d)
  mkdir -p "$root"/{bin,tmp,etc}
  cp "$(command -v busybox)" "$root/bin/busybox"
  for name in sh sleep cat ls true; do ln -s busybox "$root/bin/$name"; done
  tar -C "$root" --sort=name --owner=0 --group=0 --numeric-owner -cf "$1.root" .
  /usr/bin/python3 "$E2E/lib/image.py" "$1" localhost/pause:1 "$1.root" "$E2E/images/pause.json"
  rm -rf "$root" "$1.root"
}

make_postgres() {
  local started mirror codename=bookworm
  started=$(now_ms)
  mirror=$(apt-get indextargets --format "\$(SITE) \$(RELEASE) \$(COMPONENT)" 'Created-By: Packages' |
    awk -v r="$codename" '$2 == r && $3 == "main" { print $1; exit }')
  say "making the image localhost/postgres:15 once, which takes a minute"
  if ! mmdebstrap --quiet --format=tar --variant=essential --include=postgresql-15,postgresql-contrib \
    --essential-hook="$E2E/images/postgres.before \"\$1\"" --customize-hook="$E2E/images/postgres.after \"\$1\"" \
    "$codename" "$1.root" "deb ${mirror:-http://deb.debian.org/debian} $codename main" >"$1.log" 2>&1; then
    cat "$1.log" >&2
    rm -f "$1.root"
    die "the image of Postgres could not be made"
  fi
  /usr/bin/python3 "$E2E/lib/image.py" "$1" localhost/postgres:15 "$1.root" "$E2E/images/postgres.json"
  rm -f "$1.root" "$1.log"
  say "made in $(since "$started")"
}

load_image() { in_machine ctr --namespace k8s.io images import --no-unpack=false "$(realpath "$1")" >>"$D/log/images.log" 2>&1 || { tail -n 5 "$D/log/images.log" >&2; return 1; }; }

load_images() {
  local file
  for file in $(image_files); do load_image "$file"; done
}
