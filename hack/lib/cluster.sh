# shellcheck shell=bash
# One real single-node Ceph with its S3 gateway below the directory $D. Sourced by hack/dev.
#
# $D/ceph.conf, keyring   what clients need        $D/env    the same for a shell
# $D/{mon,mgr,osd,rgw}    the daemons' own data    $D/log    their logs
# $D/run                  sockets, one pid file for each daemon
# $D/aldaas-run           where aldaas keeps its mounts

# In the order in which they start.
# shellcheck disable=SC2034
DAEMONS=(mon mgr osd rgw)

# ---- daemons ---------------------------------------------------------------------------------

# The pid of daemon $1 when it runs, else nothing and a failure. A recorded pid alone proves
# nothing: after a reboot it may be anybody's, so its command line must name our directory.
daemon_pid() {
  local pid tries=100
  pid=$(cat "$D/run/$1.pid" 2>/dev/null) || return 1
  [ -n "$pid" ] || return 1
  # While a large program is read from the disk to be started, its process has no arguments yet.
  until has_arguments "$pid" || [ $((tries -= 1)) -eq 0 ]; do
    alive "$pid" || return 1
    sleep 0.05
  done
  names_directory "$pid" "$D" && alive "$pid" || return 1
  echo "$pid"
}

has_arguments() { [ -n "$(tr -d '\0' 2>/dev/null <"/proc/$1/cmdline")" ]; }

# Whether process $1 still runs. A zombie doesn't, unless only its first thread has ended.
alive() {
  local state
  state=$(sed -E 's/^.*\) (.).*$/\1/' "/proc/$1/stat" 2>/dev/null) || return 1
  [ "$state" != Z ] || [ "$(find "/proc/$1/task" -mindepth 1 -maxdepth 1 2>/dev/null | wc -l)" -gt 1 ]
}

# Whether an argument of process $1 names directory $2 or something below it.
names_directory() {
  local cmdline
  cmdline=$(tr '\0' '\n' 2>/dev/null <"/proc/$1/cmdline") || return 1
  case "$cmdline"$'\n' in *"$2"/* | *"$2"$'\n'*) return 0 ;; *) return 1 ;; esac
}

daemon_command() {
  case "$1" in
    mon) echo ceph-mon -i a ;;
    mgr) echo ceph-mgr -i a ;;
    osd) echo ceph-osd -i 0 ;;
    rgw) echo radosgw -n client.rgw ;;
    *) die "no daemon is called '$1': mon, mgr, osd or rgw" ;;
  esac
}

# Starts daemon $1 in a session of its own, so that it outlives the shell and its terminal. With the allocator that Ceph's own
# packages are linked with, and Debian's are not (they only bring it along): a write costs the OSD a third less.
start_daemon() {
  local command
  daemon_pid "$1" >/dev/null && return 0
  read -ra command < <(daemon_command "$1")
  LD_PRELOAD=$(tcmalloc) setsid "${command[@]}" -f -c "$D/ceph.conf" </dev/null >"$D/log/$1.out" 2>&1 8>&- 9>&- &
  echo $! >"$D/run/$1.pid"
  disown
}

tcmalloc() { /sbin/ldconfig -p | awk '$1 == "libtcmalloc.so.4" && !found++ { print $NF }'; }

# Stops daemon $1: asks, and kills after $2 seconds (default 10).
stop_daemon() {
  local pid
  if pid=$(daemon_pid "$1"); then stop_process "$pid" "${2:-10}"; fi
  rm -f "$D/run/$1.pid"
}

stop_process() {
  local pid=$1 tries=$(($2 * 20))
  kill -TERM "$pid" 2>/dev/null
  while alive "$pid"; do
    if [ $((tries -= 1)) -eq 0 ]; then kill -KILL "$pid" 2>/dev/null; fi
    [ $tries -gt -100 ] || { say "process $pid ($(tr '\0' ' ' <"/proc/$pid/cmdline")) cannot be killed"; return 1; }
    sleep 0.05
  done
}

# Waits until "$@" succeeds, at most $1 seconds, and no longer than daemon $2 lives.
wait_for() {
  local deadline=$(($(now_ms) + $1 * 1000)) daemon=$2
  shift 2
  until "$@"; do
    daemon_pid "$daemon" >/dev/null || { say "$daemon ended"; return 1; }
    [ "$(now_ms)" -lt "$deadline" ] || { say "$daemon is not there in time"; return 1; }
    sleep 0.05
  done
}

mon_commands() { /usr/bin/python3 "$HACK/lib/mon-commands.py" "$D/ceph.conf" "${1:-30}"; }

# Waits until daemon $2, which was just started, answers $3 with $4 (KEY=VALUE), at most $1 seconds, and no longer than it lives.
wait_until_says() {
  # Not `daemon_pid`: a process that is about to become its program has no arguments for a moment.
  /usr/bin/python3 -IS "$HACK/lib/asok.py" "$(cat "$D/run/$2.pid")" "$1" "$D/run/$2.asok" "$3" "$4" ||
    { say "$2 ended, or is not there in time"; return 1; }
}

listens() { (: <"/dev/tcp/${1%:*}/${1##*:}") 2>/dev/null; }

# ---- ports -----------------------------------------------------------------------------------

# Prints $1 free ports. Several clusters may start at once, so what is handed out is remembered
# for two minutes, which is long enough for the daemon to listen on it.
choose_ports() {
  local book now port wanted=$1
  book=${TMPDIR:-/tmp}/aldaas-ports-$(id -u) now=$(date +%s)
  (
    flock 8
    touch "$book"
    awk -v now="$now" '$2 > now' "$book" >"$book.new"
    while [ "$wanted" -gt 0 ]; do
      port=$((20000 + RANDOM % 12000)) # below the ephemeral range, which outgoing connections use
      grep -q "^$port " "$book.new" && continue
      [ -z "$(ss -Hltn "sport = :$port")" ] || continue
      echo "$port $((now + 120))" >>"$book.new"
      echo "$port"
      wanted=$((wanted - 1))
    done
    mv "$book.new" "$book"
  ) 8>>"$book.lock"
}

# ---- making it -------------------------------------------------------------------------------

write_conf() {
  cat >"$D/ceph.conf" <<CONF
[global]
fsid = $FSID
mon host = [v2:$ADDR:$MON_V2,v1:$ADDR:$MON_V1]
public addr = $ADDR
keyring = $D/keyring
run dir = $D/run
admin socket = $D/run/\$cluster-\$name.\$pid.\$cctid.asok
log file = $D/log/\$name.log
log to stderr = false
err to stderr = true
crash dir = $D/crash
auth allow insecure global id reclaim = false

# one copy, on one disk
osd pool default size = 1
osd pool default min size = 1
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
mon allow pool delete = true
mon max pg per osd = 2000
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
mon warn on insecure global id reclaim allowed = false

# What is only gathered in memory, for the log of a crash, costs more than what is written.
debug ms = 0/0
debug auth = 1/1
debug monc = 0/0
debug objecter = 0/0
debug rados = 0/0
debug rbd = 0/0
debug objectcacher = 0/0
debug mon = 1/1
debug paxos = 1/1
debug mgr = 1/1
debug osd = 1/1
debug bluestore = 1/1
debug bluefs = 1/1
debug bdev = 1/1
debug rocksdb = 1/1
debug rgw = 1/1

[mon]
mon data = $D/mon
mon data avail warn = 2
mon data avail crit = 1
mon cluster log file = $D/log/cluster.log
mon memory target = 536870912
rocksdb cache size = 67108864
# one monitor has nobody to wait for
paxos propose interval = 0.05
paxos min wait = 0.01
admin socket = $D/run/mon.asok

[mgr]
mgr data = $D/mgr
keyring = $D/mgr/keyring
mgr stats period = 1
mgr initial modules =
mgr/devicehealth/enable_monitoring = false
mgr/progress/enabled = false
mgr/balancer/active = false
mgr/pg_autoscaler/noautoscale = true
admin socket = $D/run/mgr.asok

[osd]
osd data = $D/osd
keyring = $D/osd/keyring
osd objectstore = bluestore
bluestore block size = $OSD_BYTES
bluestore block create = true
bluestore fsck on mkfs = false
osd memory target = 939524096
osd memory cache min = 67108864
# A lease that ran out while the OSD hung is renewed by the other OSDs' answer; there is no other, and
# what waits for it would wait for ever. So: ten minutes instead of 16 seconds.
osd pool default read lease ratio = 30
osd max pg per osd hard ratio = 10
osd scrub load threshold = 0.01
osd class update on start = false
osd crush update on start = false
osd enable op tracker = false
admin socket = $D/run/osd.asok

[client.rgw]
keyring = $D/rgw/keyring
rgw data = $D/rgw
rgw frontends = beast endpoint=$ADDR:$S3_PORT
rgw thread pool size = 64
rgw max put size = 1099511627776
rgw run sync thread = false
rgw enable usage log = false
rgw rados pool pg num min = 1
rgw gc max objs = 1
rgw lc max objs = 1
rgw objexp hints num shards = 1
# one gateway needs to tell no other; with the cache on, the first write after a crash waits 30 s for
# the answer of the gateway that is no more
rgw cache enabled = false
rgw override bucket index max shards = 1
admin socket = $D/run/rgw.asok
CONF
}

# The manager looks for them where there are none.
leave_modules_out() {
  mkdir "$D/mgr/modules"
  sed -i "s|^mgr initial modules =$|mgr module path = $D/mgr/modules|" "$D/ceph.conf"
}

write_env() {
  cat >"$D/env.new" <<ENV
ALDAAS_CEPH_CONF=$D/ceph.conf
ALDAAS_POOL=aldaas
ALDAAS_RUN_DIR=$D/aldaas-run
ENV
  # The engine must get through our home directory: only we do.
  [ "$(id -u)" -eq 0 ] || echo "ALDAAS_ENGINE_USER=$(id -un)" >>"$D/env.new"
  if [ "$S3" = yes ]; then
    cat >>"$D/env.new" <<ENV
ALDAAS_S3_ENDPOINT=http://$ADDR:$S3_PORT
AWS_ENDPOINT_URL=http://$ADDR:$S3_PORT
AWS_ACCESS_KEY_ID=$ACCESS_KEY
AWS_SECRET_ACCESS_KEY=$SECRET_KEY
AWS_REGION=us-east-1
ENV
  fi
  chmod 600 "$D/env.new"
  mv "$D/env.new" "$D/env"
}

make_keyrings() {
  {
    ceph-authtool --create-keyring "$D/keyring" --gen-key -n client.admin \
      --cap mon 'allow *' --cap osd 'allow *' --cap mds 'allow *' --cap mgr 'allow *'
    ceph-authtool --create-keyring "$D/mon.keyring" --gen-key -n mon. --cap mon 'allow *'
    ceph-authtool "$D/mon.keyring" --import-keyring "$D/keyring"
    ceph-authtool --create-keyring "$D/mgr/keyring" --gen-key -n mgr.a
    ceph-authtool --create-keyring "$D/rgw/keyring" --gen-key -n client.rgw
    ceph-authtool --create-keyring "$D/osd/keyring" --gen-key -n osd.0
  } >"$D/log/keyrings.out"
}

key_of() { ceph-authtool "$1" -p -n "$2"; }

make_mon() {
  monmaptool --create --clobber --fsid "$FSID" \
    --addv a "[v2:$ADDR:$MON_V2,v1:$ADDR:$MON_V1]" "$D/monmap" >"$D/log/monmaptool.out" 2>&1
  ceph-mon -i a -c "$D/ceph.conf" --mkfs --monmap "$D/monmap" --keyring "$D/mon.keyring" >"$D/log/mon.mkfs" 2>&1
}

make_osd() {
  ceph-osd -i 0 -c "$D/ceph.conf" --mkfs --no-mon-config --osd-uuid "$OSD_UUID" >"$D/log/osd.mkfs" 2>&1
}

# Tells the monitor of the manager, the gateway and the OSD, and where the OSD's data belongs.
introduce_daemons() {
  mon_commands 30 <<JSON
{"prefix": "auth add", "entity": "mgr.a", "caps": ["mon", "allow profile mgr", "osd", "allow *", "mds", "allow *"], "stdin": "[mgr.a]\n\tkey = $(key_of "$D/mgr/keyring" mgr.a)\n"}
{"prefix": "auth add", "entity": "client.rgw", "caps": ["mon", "allow rw", "osd", "allow rwx", "mgr", "allow rw"], "stdin": "[client.rgw]\n\tkey = $(key_of "$D/rgw/keyring" client.rgw)\n"}
{"prefix": "osd new", "uuid": "$OSD_UUID", "id": 0, "stdin": "{\"cephx_secret\": \"$(key_of "$D/osd/keyring" osd.0)\"}"}
{"prefix": "osd crush add", "id": 0, "weight": 1.0, "args": ["root=default", "host=dev"]}
{"prefix": "osd set-require-min-compat-client", "version": "mimic"}
JSON
}

make_pools() {
  mon_commands 30 <<JSON
{"prefix": "osd pool create", "pool": "aldaas", "pg_num": 8, "pgp_num": 8}
{"prefix": "osd pool application enable", "pool": "aldaas", "app": "rbd"}
JSON
  timeout 30 rbd -c "$D/ceph.conf" pool init aldaas
}

make_gateway_pools() {
  local pool
  for pool in .rgw.root default.rgw.log default.rgw.control default.rgw.meta default.rgw.buckets.index default.rgw.buckets.data; do
    echo "{\"prefix\": \"osd pool create\", \"pool\": \"$pool\", \"pg_num\": 1, \"pgp_num\": 1}"
    echo "{\"prefix\": \"osd pool application enable\", \"pool\": \"$pool\", \"app\": \"rgw\"}"
  done | mon_commands 30
}

make_s3_user() {
  timeout 60 radosgw-admin -c "$D/ceph.conf" user create --uid dev --display-name aldaas \
    --access-key "$ACCESS_KEY" --secret-key "$SECRET_KEY" >"$D/log/s3-user.out" 2>&1
}

make_bucket() {
  AWS_ENDPOINT_URL=http://$ADDR:$S3_PORT AWS_ACCESS_KEY_ID=$ACCESS_KEY AWS_SECRET_ACCESS_KEY=$SECRET_KEY \
    AWS_REGION=us-east-1 "$HACK/s3" mb "$1"
}
