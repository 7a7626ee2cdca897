{{/* What Rook has: asked of the cluster at install and upgrade. */}}

{{/* Without a cluster lookup finds nothing at all. */}}
{{- define "aldaas.rook.asked" -}}
{{- if not (lookup "v1" "Namespace" "" "kube-system") }}
{{- fail "ceph.rook.enabled reads monitors and keys from the cluster, and there is none here: use `helm install`, `helm template --dry-run=server`, or set ceph.monitors or ceph.existingSecret" }}
{{- end }}
{{- end }}

{{/* The monitors, with blanks between. The ConfigMap has a=10.96.0.7:6789,b=… */}}
{{- define "aldaas.rook.monitors" -}}
{{- include "aldaas.rook.asked" . }}
{{- $rook := .Values.ceph.rook }}
{{- $map := lookup "v1" "ConfigMap" $rook.namespace "rook-ceph-mon-endpoints" }}
{{- if not $map }}
{{- fail (printf "there is no Ceph of Rook in namespace %s: its ConfigMap rook-ceph-mon-endpoints is missing. Set ceph.rook.namespace" $rook.namespace) }}
{{- end }}
{{- range splitList "," (dig "data" "data" "" $map) }} {{ regexReplaceAll "^[^=]*=" . "" }}{{ end }}
{{- end }}

{{/* A user's key; takes (list $ user). Empty only while Rook is yet to make it. */}}
{{- define "aldaas.rook.key" -}}
{{- $ := first . -}}
{{- $user := last . -}}
{{- $rook := $.Values.ceph.rook }}
{{- $secret := lookup "v1" "Secret" $rook.namespace (printf "rook-ceph-client-%s" $user) }}
{{- $key := dig "data" $user "" $secret }}
{{- if $key }}
{{- $key | b64dec }}
{{- else if not $rook.create }}
{{- fail (printf "Rook has no key of client.%s: the Secret rook-ceph-client-%s in namespace %s is missing. Make a CephClient %s there, or let the chart: ceph.rook.create=true" $user $user $rook.namespace $user) }}
{{- end }}
{{- end }}
