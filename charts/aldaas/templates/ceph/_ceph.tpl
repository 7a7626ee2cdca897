{{/* The way to Ceph: who has which Secret, and what is in it. A role is "controller" or "node". */}}

{{/* "true" where the nodes have a user of their own. */}}
{{- define "aldaas.ceph.ownNode" -}}
{{- with .Values.ceph -}}
{{- if or .rook.enabled .node.user .node.key .node.existingSecret }}true{{ end }}
{{- end }}
{{- end }}

{{/* Takes (list $ role). */}}
{{- define "aldaas.ceph.user" -}}
{{- $ := first . -}}
{{- $ceph := $.Values.ceph -}}
{{- if $ceph.rook.enabled -}}
{{ ternary $ceph.rook.nodeClient $ceph.rook.client (eq (last .) "node") }}
{{- else if eq (last .) "node" -}}
{{ $ceph.node.user | default $ceph.user }}
{{- else -}}
{{ $ceph.user }}
{{- end }}
{{- end }}

{{/* Name of the Secret; takes (list $ role). */}}
{{- define "aldaas.ceph.secret" -}}
{{- $ := first . -}}
{{- $ceph := $.Values.ceph -}}
{{- $node := and (eq (last .) "node") (include "aldaas.ceph.ownNode" $) -}}
{{- if $ceph.rook.enabled -}}
{{ include "aldaas.fullname" $ }}-ceph{{ if $node }}-node{{ end }}
{{- else if and $node $ceph.node.existingSecret -}}
{{ $ceph.node.existingSecret }}
{{- else if and $node $ceph.node.key -}}
{{ include "aldaas.fullname" $ }}-ceph-node
{{- else if $ceph.existingSecret -}}
{{ $ceph.existingSecret }}
{{- else -}}
{{ include "aldaas.fullname" $ }}-ceph
{{- end }}
{{- end }}

{{/* The volume; takes (list $ role). */}}
{{- define "aldaas.ceph.volume" -}}
- name: ceph
  secret:
    secretName: {{ include "aldaas.ceph.secret" . }}
    defaultMode: 0440
{{- end }}

{{- define "aldaas.ceph.mount" -}}
- name: ceph
  mountPath: /etc/ceph
  readOnly: true
{{- end }}

{{/* Flags; takes (list $ role). */}}
{{- define "aldaas.ceph.flags" -}}
{{- $ := first . -}}
- --ceph-conf=/etc/ceph/ceph.conf
- --ceph-user={{ include "aldaas.ceph.user" . }}
- --pool={{ $.Values.ceph.pool }}
{{- end }}

{{/* Changes with the Secret, so that pods are replaced with it. */}}
{{- define "aldaas.ceph.checksum" -}}
{{- include (print $.Template.BasePath "/ceph/secrets.yaml") . | sha256sum }}
{{- end }}

{{/* ceph.conf; takes (list $ monitors). */}}
{{- define "aldaas.ceph.conf" -}}
{{- $ := first . -}}
[global]
mon host = {{ join "," (last .) }}
keyring = /etc/ceph/keyring
log to stderr = true
err to stderr = true
log file = /dev/null
admin socket =
{{- with $.Values.ceph.config }}
{{ . }}
{{- end }}
{{- end }}

{{/* What a Secret holds; takes (list $ monitors user key). */}}
{{- define "aldaas.ceph.data" -}}
{{- $ := first . -}}
ceph.conf: |
  {{- include "aldaas.ceph.conf" (list $ (index . 1)) | nindent 2 }}
keyring: |
  [client.{{ index . 2 }}]
  key = {{ index . 3 }}
{{- end }}
