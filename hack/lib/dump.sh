# shellcheck shell=bash
# A dump to work with: what pg_dump says of a real Postgres that pgbench filled. Sourced after common.sh.

postgres_programs() {
  local dir
  dir=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
  [ -x "$dir/initdb" ] || die "there is no Postgres below /usr/lib/postgresql: hack/deps installs it"
  echo "$dir"
}

# Postgres refuses to run as root.
as_engine() {
  if [ "$(id -u)" -eq 0 ]; then setpriv --reuid postgres --regid postgres --clear-groups "$@"; else "$@"; fi
}

# Writes the gzipped dump of a pgbench database of scale $1 to file $2. The server runs in a
# directory of its own, on a socket alone, and is gone afterwards.
pgbench_dump() (
  bin=$(postgres_programs)
  dir=$(mktemp -d /var/tmp/aldaas-dump.XXXX)
  # shellcheck disable=SC2064 # the directory of now
  trap "as_engine '$bin/pg_ctl' -D '$dir/data' -m immediate -s stop >/dev/null 2>&1 || true; rm -rf '$dir'" EXIT
  [ "$(id -u)" -ne 0 ] || chown postgres "$dir"
  cd "$dir" || exit
  as_engine "$bin/initdb" -D "$dir/data" -U postgres -A trust --no-sync >"$dir/log"
  as_engine "$bin/pg_ctl" -D "$dir/data" -s -w -l "$dir/server.log" \
    -o "-k $dir -c listen_addresses='' -c fsync=off -c max_wal_size=4GB" start
  export PGHOST=$dir PGUSER=postgres
  as_engine "$bin/createdb" orders
  as_engine "$bin/pgbench" -q -i -s "$1" orders >>"$dir/log" 2>&1
  as_engine "$bin/pg_dump" --no-owner orders | gzip -1 >"$2"
  as_engine "$bin/pg_ctl" -D "$dir/data" -m fast -s stop
)
