# shellcheck shell=bash
# The daemons of the node, in the order in which they start. Sourced by e2e/cluster after machine.sh and packages.sh.

# shellcheck disable=SC2034
DAEMONS=(etcd apiserver containerd controller-manager scheduler kubelet proxy)

# ---- what they read --------------------------------------------------------------------------

# A kubeconfig for user $1 with token $2.
kubeconfig() {
  cat >"$D/$1.kubeconfig" <<CONFIG
apiVersion: v1
kind: Config
current-context: e2e
clusters:
  - { name: e2e, cluster: { server: "https://$NODE_IP:6443", certificate-authority: "$D/certs/ca.crt" } }
users:
  - { name: "$1", user: { token: "$2" } }
contexts:
  - { name: e2e, context: { cluster: e2e, user: "$1", namespace: default } }
CONFIG
}

# One certificate for whoever serves here, signed by an authority of its own. Elliptic, for these are made in no time.
write_certificates() {
  local names="DNS:localhost,DNS:e2e,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"
  mkdir -p "$D/certs"
  (
    cd "$D/certs" || exit
    umask 077
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=e2e-ca \
      -keyout ca.key -out ca.crt
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=e2e -keyout node.key -out node.csr
    openssl x509 -req -in node.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -out node.crt -extfile - <<TEXT
basicConstraints=critical,CA:FALSE
subjectAltName=$names,IP:127.0.0.1,IP:$NODE_IP,IP:10.$NET.128.1
TEXT
  ) >"$D/log/certificates.log" 2>&1
}

# Users and their tokens, the key of the service accounts.
write_credentials() {
  local name user groups token
  umask 077
  openssl ecparam -name prime256v1 -genkey -noout -out "$D/certs/service-accounts.key"
  : >"$D/certs/tokens"
  while read -r name user groups; do
    token=$(openssl rand -hex 20)
    echo "$token,$user,$user,\"$groups\"" >>"$D/certs/tokens"
    kubeconfig "$name" "$token"
  done <<'USERS'
admin admin system:masters
controller-manager system:kube-controller-manager
scheduler system:kube-scheduler
kubelet system:node:e2e system:nodes
proxy system:kube-proxy
USERS
  umask 022
  mv "$D/admin.kubeconfig" "$D/kubeconfig"
}

# Root may lack the right to make a process less likely to be killed than its parent.
may_not_raise() { ((0x$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status) & 1 << 24)) && echo false || echo true; }

snapshotter() {
  case "$(stat -f -c %T "$D")" in overlayfs) echo native ;; *) echo overlayfs ;; esac
}

write_containerd() {
  mkdir -p "$D/cni"
  cat >"$D/containerd.toml" <<CONFIG
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = $(may_not_raise)
  sandbox_image = "localhost/pause:1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$D/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "$(snapshotter)"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
CONFIG
  cat >"$D/cni/10-pods.conflist" <<CONFIG
{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [
    {
      "type": "bridge", "bridge": "pods0", "isGateway": true, "hairpinMode": true,
      "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.$NET.0.0/24" }]], "routes": [{ "dst": "0.0.0.0/0" }] }
    },
    { "type": "portmap", "capabilities": { "portMappings": true } }
  ]
}
CONFIG
}

# There is no DNS in this cluster, and asking for it fails at once.
# Nothing is evicted because this machine's disk is full, no image goes, and pods start as fast as kubelet can.
write_kubelet() {
  cat >"$D/kubelet.yaml" <<CONFIG
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
tlsCertFile: $D/certs/node.crt
tlsPrivateKeyFile: $D/certs/node.key
authentication: { anonymous: { enabled: true }, webhook: { enabled: false } }
authorization: { mode: AlwaysAllow }
cgroupDriver: cgroupfs
failSwapOn: false
oomScoreAdj: 0
resolvConf: ""
clusterDNS: ["$NODE_IP"]
maxPods: 200
evictionHard: { memory.available: 50Mi, nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%" }
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
serializeImagePulls: false
nodeStatusUpdateFrequency: 5s
kubeAPIQPS: 100
kubeAPIBurst: 200
eventRecordQPS: 100
eventBurst: 200
CONFIG
}

# ---- how they are started --------------------------------------------------------------------

etcd_command() {
  local url=http://127.0.0.1
  command=(etcd --name e2e --data-dir "$D/state/etcd" --log-level warn --logger zap --unsafe-no-fsync
    --listen-client-urls "$url:2379" --advertise-client-urls "$url:2379" --listen-peer-urls "$url:2380"
    --initial-advertise-peer-urls "$url:2380" --initial-cluster "e2e=$url:2380")
}

apiserver_command() {
  command=(kube-apiserver --etcd-servers http://127.0.0.1:2379 "${tls[@]}" --bind-address "$NODE_IP"
    --advertise-address "$NODE_IP" --secure-port 6443 --service-cluster-ip-range "10.$NET.128.0/20"
    --authorization-mode "Node,RBAC" --enable-admission-plugins NodeRestriction --token-auth-file "$D/certs/tokens"
    --service-account-issuer https://kubernetes.default.svc
    --service-account-key-file "$D/certs/service-accounts.key"
    --service-account-signing-key-file "$D/certs/service-accounts.key"
    --kubelet-preferred-address-types InternalIP --allow-privileged --profiling=false)
}

containerd_command() { command=(containerd --config "$D/containerd.toml" --log-level warn); }

# A node that is silent counts as gone after 20 seconds, not 40: the tests wait for it.
controller-manager_command() {
  command=(kube-controller-manager --kubeconfig "$D/controller-manager.kubeconfig" --use-service-account-credentials
    --authentication-kubeconfig "$D/controller-manager.kubeconfig"
    --authorization-kubeconfig "$D/controller-manager.kubeconfig" "${tls[@]}"
    --service-account-private-key-file "$D/certs/service-accounts.key" --root-ca-file "$D/certs/ca.crt"
    --leader-elect=false --node-monitor-grace-period 20s --node-monitor-period 2s --concurrent-gc-syncs 5
    --kube-api-qps 100 --kube-api-burst 200)
}

scheduler_command() {
  command=(kube-scheduler --kubeconfig "$D/scheduler.kubeconfig" --leader-elect=false
    --authentication-kubeconfig "$D/scheduler.kubeconfig" --authorization-kubeconfig "$D/scheduler.kubeconfig"
    "${tls[@]}" --kube-api-qps 100 --kube-api-burst 200)
}

kubelet_command() {
  local runtime=() help
  help=$(kubelet --help 2>/dev/null)
  if grep -q -- '--container-runtime string' <<<"$help"; then runtime=(--container-runtime remote); fi
  command=(kubelet --config "$D/kubelet.yaml" --kubeconfig "$D/kubelet.kubeconfig" --hostname-override e2e
    --node-ip "$NODE_IP" "${runtime[@]}"
    --container-runtime-endpoint unix:///run/containerd/containerd.sock)
}

# What it would set for connection tracking is this machine's, not its network's.
proxy_command() {
  command=(kube-proxy --kubeconfig "$D/proxy.kubeconfig" --hostname-override e2e --proxy-mode iptables
    --cluster-cidr "10.$NET.0.0/17" --conntrack-max-per-core 0 --conntrack-tcp-timeout-established 0
    --conntrack-tcp-timeout-close-wait 0 --oom-score-adj 0 --iptables-min-sync-period 0s)
}

# ---- starting and stopping -------------------------------------------------------------------

run_daemon() {
  local name=$1 command=() tls=(--tls-cert-file "$D/certs/node.crt" --tls-private-key-file "$D/certs/node.key")
  ! daemon_pid "$name" >/dev/null || return 0
  "${name}_command"
  start_in_machine "$name" "${command[@]}"
}

# Waits until "$@" succeeds, at most $1 seconds, and no longer than daemon $2 lives.
wait_for() {
  local deadline=$(($(now_ms) + $1 * 1000)) daemon=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    daemon_pid "$daemon" >/dev/null || { say "$daemon ended: $D/log/$daemon.log"; return 1; }
    [ "$(now_ms)" -lt "$deadline" ] || { say "$daemon is not there in time: $D/log/$daemon.log"; return 1; }
    sleep 0.1
  done
}

kubectl() { command kubectl --kubeconfig "$D/kubeconfig" "$@"; }
ctr() { in_machine ctr --namespace k8s.io "$@"; }

start_daemon() {
  case "$1" in
    apiserver)
      # It only tries for so long.
      wait_for 30 etcd in_machine bash -c ': </dev/tcp/127.0.0.1/2379'
      run_daemon apiserver
      wait_for 60 apiserver kubectl get --raw /readyz
      ;;
    containerd)
      run_daemon containerd
      wait_for 30 containerd ctr version
      ;;
    *) run_daemon "$1" ;;
  esac
}
