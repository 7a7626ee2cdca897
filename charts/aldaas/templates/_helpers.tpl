{{/* Names. */}}
{{- define "aldaas.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "aldaas.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "aldaas.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "aldaas.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Labels of pods: without the chart's version, with which nothing in them changes. Takes (list $ "component"). */}}
{{- define "aldaas.podLabels" -}}
{{- $ := first . -}}
{{ include "aldaas.selector" . }}
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: aldaas
{{- end }}

{{/* What selects a component's pods; takes (list $ "component"). The value of name is what programs look for: it stays. */}}
{{- define "aldaas.selector" -}}
{{- $ := first . -}}
app.kubernetes.io/name: aldaas
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/component: {{ last . }}
{{- end }}

{{- define "aldaas.labels" -}}
{{- $ := first . -}}
{{ include "aldaas.selector" . }}
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: aldaas
app.kubernetes.io/managed-by: {{ $.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "aldaas.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end }}
{{- end }}
{{- end }}

{{/* Where on the nodes the plugin's pod lays aldaas-restore for Jobs; each image has a place of its own. */}}
{{- define "aldaas.programDir" -}}
bin/{{ include "aldaas.image" . | sha256sum | trunc 12 }}
{{- end }}

{{- define "aldaas.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Kubernetes' version: the cluster's, or what was said. */}}
{{- define "aldaas.kubeVersion" -}}
{{- .Values.kubeVersion | default .Capabilities.KubeVersion.Version | trimPrefix "v" }}
{{- end }}

{{/* "true" where the cluster is at least so new; takes (list $ "1.28"). */}}
{{- define "aldaas.since" -}}
{{- if semverCompare (printf ">=%s.0-0" (last .)) (include "aldaas.kubeVersion" (first .)) }}true{{ end }}
{{- end }}

{{- define "aldaas.pdbVersion" -}}
{{- if include "aldaas.since" (list . "1.21") }}policy/v1{{ else }}policy/v1beta1{{ end }}
{{- end }}

{{/* "true" where the API server itself finds out which pods concern the webhook. */}}
{{- define "aldaas.matchConditions" -}}
{{- if eq .Values.webhook.match "conditions" }}true
{{- else if and (eq .Values.webhook.match "auto") (include "aldaas.since" (list . "1.28")) }}true
{{- end }}
{{- end }}

{{/* "true" where nodes may need the I/O server. */}}
{{- define "aldaas.io" -}}
{{- if ne .Values.node.attach "krbd" }}true{{ end }}
{{- end }}

{{/* The fields of pods that are not root. */}}
{{- define "aldaas.restrictedPod" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- define "aldaas.restrictedContainer" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{/* Where pods run; takes the values of a component. */}}
{{- define "aldaas.placement" -}}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Environment of every program; takes (list $ component-values). */}}
{{- define "aldaas.env" -}}
{{- $ := first . -}}
- name: RUST_LOG
  value: {{ $.Values.logLevel | quote }}
{{- with (last .).extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* HTTP probes on a named port. */}}
{{- define "aldaas.probes" -}}
livenessProbe:
  httpGet: { path: /healthz, port: http }
  periodSeconds: 20
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: { path: /readyz, port: http }
  periodSeconds: 5
  timeoutSeconds: 3
{{- end }}
