{{/* Names. Objects start with the release's name where that contains the chart's, else with
     both. */}}
{{- define "capsign.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- define "capsign.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "capsign.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "capsign.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- define "capsign.adapter" -}}{{ include "capsign.fullname" . }}-adapter{{- end -}}
{{- define "capsign.export" -}}{{ include "capsign.fullname" . }}-export{{- end -}}
{{- define "capsign.logOrigin" -}}
{{- $ours := printf "%s/%s/%s" .Values.trustDomain .Release.Namespace .Release.Name -}}
{{- .Values.adapter.logOrigin | default $ours -}}
{{- end -}}
{{- define "capsign.injector" -}}{{ include "capsign.fullname" . }}-injector{{- end -}}
{{/* Objects of the whole cluster carry the namespace too: two releases do not share one. */}}
{{- define "capsign.cluster" -}}
{{- $full := include "capsign.fullname" .root -}}
{{- printf "%s-%s-%s" $full .name .root.Release.Namespace | trimSuffix "-" -}}
{{- end -}}
{{/* With a given authority it is another object: in the one before, the authority is the
     injector's or cert-manager's, and Helm may not change what others wrote. */}}
{{- define "capsign.webhook" -}}
{{- $given := eq .Values.injector.certificate.source "secret" -}}
{{- $name := ternary "injector-given" "injector" $given -}}
{{- include "capsign.cluster" (dict "root" . "name" $name) -}}
{{- end -}}
{{- define "capsign.trustBundle" -}}{{ include "capsign.fullname" . }}-trust-bundle{{- end -}}
{{/* Where the pod of `helm test` runs. One that the chart makes has our name in it: Helm deletes
     it, whatever is in it, to make it anew. */}}
{{- define "capsign.testNamespace" -}}
{{- $full := include "capsign.fullname" . -}}
{{- $ours := ternary $full (printf "%s-capsign" $full) (contains "capsign" $full) -}}
{{- .Values.test.namespace | default (printf "%s-test" $ours) -}}
{{- end -}}
{{- define "capsign.publicKeys" -}}
{{- include "capsign.adapter" . }}-public
{{- end -}}
{{- define "capsign.publicKeysHost" -}}
{{- include "capsign.publicKeys" . }}.{{ .Release.Namespace }}.svc
{{- end -}}
{{- define "capsign.adapterHost" -}}
{{- include "capsign.adapter" . }}.{{ .Release.Namespace }}.svc
{{- end -}}
{{/* In CEL: whether the pod has the label. */}}
{{- define "capsign.labelled" -}}
has(object.metadata.labels) && 'capsign.dev/inject' in object.metadata.labels && object.metadata.labels['capsign.dev/inject'] == 'true'
{{- end -}}
{{/* Namespaces whose pods are never injected, as a list in JSON. */}}
{{- define "capsign.leftOut" -}}
{{- $excluded := .Values.injector.webhook.excludedNamespaces | default list -}}
{{- concat (list "kube-system" .Release.Namespace) $excluded | uniq | toJson -}}
{{- end -}}
{{- define "capsign.claim" -}}
{{- $ours := printf "%s-data" (include "capsign.adapter" .) -}}
{{- .Values.adapter.persistence.existingClaim | default $ours -}}
{{- end -}}

{{/* Labels. The argument is a dictionary: root, component, and `more` for labels that go before
     the common ones. Selectors never change between versions. */}}
{{- define "capsign.selector" -}}
app.kubernetes.io/name: {{ include "capsign.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}
{{- define "capsign.labels" -}}
{{ include "capsign.selector" . }}
app.kubernetes.io/part-of: capsign
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- include "capsign.givenLabels" . }}
{{- end -}}
{{- define "capsign.givenLabels" -}}
{{- with merge (dict) (.more | default dict) (.root.Values.commonLabels | default dict) }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of pods name no version: an upgrade that changes nothing in a pod restarts none. */}}
{{- define "capsign.podLabels" -}}
{{ include "capsign.selector" . }}
app.kubernetes.io/part-of: capsign
{{- include "capsign.givenLabels" . }}
{{- end -}}

{{/* An image's reference, quoted. The argument is a dictionary: root, image. */}}
{{- define "capsign.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest | quote -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (.image.tag | default .root.Chart.AppVersion) | quote -}}
{{- end -}}
{{- end -}}

{{/* What Pod Security `restricted` demands, and more. */}}
{{- define "capsign.podSecurity" -}}
runAsNonRoot: true
{{- range $key := list "runAsUser" "runAsGroup" "fsGroup" }}
{{- with get $.Values.podSecurity $key }}
{{ $key }}: {{ int64 . }}
{{- end }}
{{- end }}
# A recursive change at each start would open the private files on the volume to the group.
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}
{{- define "capsign.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* Where pods may run. The argument is a dictionary: root, component, values. */}}
{{- define "capsign.scheduling" -}}
topologySpreadConstraints:
{{- if kindIs "slice" .values.topologySpreadConstraints }}
{{ toYaml .values.topologySpreadConstraints | indent 2 }}
{{- else }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "capsign.selector" . | nindent 8 }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "capsign.telemetryEnv" -}}
{{- with .Values.telemetry }}
{{- if .otlpEndpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ .otlpEndpoint | quote }}}
- {name: OTEL_METRIC_EXPORT_INTERVAL, value: {{ mul .metricIntervalSeconds 1000 | quote }}}
- {name: OTEL_TRACES_SAMPLER, value: parentbased_traceidratio}
- {name: OTEL_TRACES_SAMPLER_ARG, value: {{ .tracesSampleRatio | quote }}}
{{- end }}
{{- end }}
{{- end -}}

{{/* The policy document; empty where it is in a ConfigMap of the platform team's. */}}
{{- define "capsign.policyDocument" -}}
{{- if .Values.policy.document -}}
{{- .Values.policy.document -}}
{{- else -}}
{{- tpl (.Files.Get "files/sample-policy.yaml") . -}}
{{- end -}}
{{- end -}}
{{- define "capsign.needsVolume" -}}
{{- if or
  (eq .Values.adapter.store.type "sqlite") (eq .Values.adapter.token.type "softhsm") -}}yes{{-
  end -}}
{{- end -}}
