{{/* What several values say together. The schema says most of it first; this also holds when the
     schema is skipped. */}}
{{- define "capsign.checks" -}}
{{- $a := .Values.adapter -}}
{{- $agent := .Values.agent -}}
{{- $there := $agent.adapter | default dict -}}
{{- if not $a.enabled -}}
{{- if not (and $there.targets $there.serverName) -}}
{{- fail (print
  "adapter.enabled is false, so agents must be told of another adapter. Set "
  "agent.adapter.targets and agent.adapter.serverName.") -}}
{{- end -}}
{{- if and
  (eq $agent.identity.source "kubernetes")
  (not (and $there.enrolmentTargets $agent.trustBundle)) -}}
{{- fail (print
  "adapter.enabled is false, and agents have their identity from an adapter. Set "
  "agent.adapter.enrolmentTargets and agent.trustBundle, or another agent.identity.source.") -}}
{{- end -}}
{{- else if $agent.trustBundle -}}
{{- fail (print
  "agent.trustBundle is set, but the adapter of this release publishes its own. Remove it, or "
  "set adapter.enabled to false.") -}}
{{- end -}}
{{- if and
  (ne $agent.identity.source "kubernetes") (not ($agent.identity.csi | default dict).driver) -}}
{{- fail (printf
  "agent.identity.source is %s: set agent.identity.csi.driver, such as csi.spiffe.io."
  $agent.identity.source) -}}
{{- end -}}
{{- $r := $a.reconcile -}}
{{- if or
  (gt (int $r.reportSeconds) (int $r.silenceSeconds))
  (gt (int $r.silenceSeconds) (int $r.cutTailSeconds)) -}}
{{- fail (print
  "adapter.reconcile: reportSeconds, silenceSeconds and cutTailSeconds must not be below the one "
  "before. Raise the later ones.") -}}
{{- end -}}
{{- $export := .Values.export -}}
{{- if $export.enabled -}}
{{- if not (and
  $a.enabled $a.publicKeys.enabled (has $a.log.public (list "readers" "everything"))) -}}
{{- fail (print
  "export.enabled needs a log that is served. Set adapter.enabled, adapter.publicKeys.enabled, and "
  "adapter.log.public to readers or everything.") -}}
{{- end -}}
{{- if not (and $export.endpoint $export.readerSecret) -}}
{{- fail (print
  "export.enabled needs export.endpoint, the OTLP receiver, and export.readerSecret, a Secret of type "
  "kubernetes.io/tls with an auditor's certificate.") -}}
{{- end -}}
{{- end -}}
{{- if eq (int .Values.injector.port) (int .Values.injector.healthPort) -}}
{{- fail "injector.port and injector.healthPort are the same. Give each its own." -}}
{{- end -}}
{{- if and (eq $a.store.type "sqlite") (gt (int $a.replicas) 1) -}}
{{- fail (printf
  (print
    "adapter.replicas is %d, but SQLite is one file and serves one replica. Set "
    "adapter.store.type to postgresql, or adapter.replicas to 1.")
  (int $a.replicas)) -}}
{{- end -}}
{{- if and
  (eq $a.token.type "softhsm") (gt (int $a.replicas) 1) (not $a.persistence.existingClaim)
  (not (has "ReadWriteMany" $a.persistence.accessModes)) -}}
{{- fail (printf
  (print
    "adapter.replicas is %d, but a SoftHSM token is a directory on a volume that one node "
    "mounts. Set adapter.token.type to library, or give a volume for all replicas in "
    "adapter.persistence.accessModes (ReadWriteMany) or adapter.persistence.existingClaim.")
  (int $a.replicas)) -}}
{{- end -}}
{{- $cold := $a.log.retention -}}
{{- if and $cold.existingClaim $cold.afterDays (not $cold.unwitnessed)
  (or (not $a.witnessPolicy) (regexMatch "(?m)^[ \t]*quorum[ \t]+none[ \t]*$" $a.witnessPolicy)) -}}
{{- fail (print
  "adapter.log.retention.existingClaim is set, and no witness has to cosign the log before old "
  "leaves move there. Demand some in adapter.witnessPolicy, or set "
  "adapter.log.retention.unwitnessed or afterDays to 0.") -}}
{{- end -}}
{{- if and (eq $a.store.type "postgresql") (not $a.store.postgresql.url) -}}
{{- fail (print
  "adapter.store.postgresql.url is empty. Set it to "
  "postgresql://user@host:5432/database?sslmode=verify-full.") -}}
{{- end -}}
{{- if eq $a.token.type "library" -}}
{{- if not $a.token.library.path -}}
{{- fail (print
  "adapter.token.library.path is empty. Name the PKCS#11 library in the container, for example "
  "/opt/pkcs11/lib/libvendor.so.") -}}
{{- end -}}
{{- if not $a.token.pinSecret.name -}}
{{- fail (print
  "adapter.token.pinSecret.name is empty. Make a Secret with the token's user PIN (kubectl "
  "create secret generic hsm-pin --from-file=pin) and name it.") -}}
{{- end -}}
{{- if and
  $a.token.library.image.reference
  (not (hasPrefix (printf "%s/" $a.token.library.image.mountPath) $a.token.library.path)) -}}
{{- fail (printf
  (print
    "adapter.token.library.path is %s, which is not below adapter.token.library.image.mountPath"
    " (%s). Name the library inside the image volume.")
  $a.token.library.path $a.token.library.image.mountPath) -}}
{{- end -}}
{{- end -}}
{{- if regexMatch "[?&](password|sslpassword)=" $a.store.postgresql.url -}}
{{- fail (print
  "adapter.store.postgresql.url has a password in it, which everybody could read in a "
  "ConfigMap. Remove it, and name a Secret in adapter.store.postgresql.passwordSecret.name.") -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" (include "capsign.fullname" .)) -}}
{{- fail (printf
  (print
    "Objects would be called %s-…, but the name of a Service begins with a letter and has "
    "letters, digits and dashes only. Set fullnameOverride.")
  (include "capsign.fullname" .)) -}}
{{- end -}}
{{- $ours := list
  "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component"
  "app.kubernetes.io/part-of" "app.kubernetes.io/version" "app.kubernetes.io/managed-by"
  "helm.sh/chart" "checksum/config" "checksum/policy" "checksum/settings"
  "kubectl.kubernetes.io/default-container" "helm.sh/resource-policy" "capsign.dev/inject"
  "pod-security.kubernetes.io/enforce" -}}
{{- range $value, $given := dict
  "commonLabels" .Values.commonLabels
  "adapter.podLabels" $a.podLabels
  "injector.podLabels" .Values.injector.podLabels
  "export.podLabels" .Values.export.podLabels
  "export.podAnnotations" .Values.export.podAnnotations
  "adapter.podAnnotations" $a.podAnnotations
  "injector.podAnnotations" .Values.injector.podAnnotations
  "adapter.persistence.annotations" $a.persistence.annotations
  "monitoring.podMonitor.labels" .Values.monitoring.podMonitor.labels
  "monitoring.rules.labels" .Values.monitoring.rules.labels
  "monitoring.dashboards.labels" .Values.monitoring.dashboards.labels -}}
{{- range $key := keys ($given | default dict) | sortAlpha -}}
{{- if has $key $ours -}}
{{- fail (printf "%s sets %s, which the chart sets itself. Remove it." $value $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and
  .Values.admissionPolicy.onlyInjected
  (or (not .Values.injector.enabled) .Values.injector.webhook.namespaceSelector) -}}
{{- fail (print
  "admissionPolicy.onlyInjected needs a webhook that sees every labelled pod. Set "
  "injector.enabled, and leave injector.webhook.namespaceSelector empty.") -}}
{{- end -}}
{{- $test := include "capsign.testNamespace" . -}}
{{- if and
  .Values.test.enabled .Values.injector.enabled
  (has $test (include "capsign.leftOut" . | fromJsonArray)) -}}
{{- fail (printf
  (print
    "helm test would run in the namespace %s, whose pods are never injected. Set test.namespace"
    " to another one that is there, or test.enabled to false.")
  $test) -}}
{{- end -}}
{{- if and
  (not .Values.test.image.repository) (or .Values.test.image.tag .Values.test.image.digest) -}}
{{- fail (print
  "test.image has a tag or a digest and no repository, so it would be the adapter's image. Set "
  "test.image.repository too, or neither.") -}}
{{- end -}}
{{- if and .Values.policy.document .Values.policy.existingConfigMap.name -}}
{{- fail "policy.document and policy.existingConfigMap.name are both set. Keep one." -}}
{{- end -}}
{{- if .Values.policy.document -}}
{{- $document := fromYaml .Values.policy.document -}}
{{- if hasKey $document "Error" -}}
{{- fail (print
  "policy.document is not YAML. Give the whole document with --set-file "
  "policy.document=policy.yaml.") -}}
{{- end -}}
{{- if ne (toString $document.trust_domain) .Values.trustDomain -}}
{{- fail (printf
  "trustDomain is %s, but policy.document says trust_domain: %s. Make them equal."
  .Values.trustDomain (toString $document.trust_domain)) -}}
{{- end -}}
{{- end -}}
{{- if not (hasKey .Values.agent.profiles "default") -}}
{{- fail "agent.profiles has no profile `default`. Pods that name none use it." -}}
{{- end -}}
{{- include "capsign.profileChecks" . -}}
{{- $identity := $a.identity -}}
{{- $third := add (int $identity.svidTtlSeconds) (int $identity.propagationSeconds) -}}
{{- $least := add 1 (mul 3 $third) -}}
{{- if lt (int $identity.authorityTtlSeconds) (int $least) -}}
{{- fail (printf
  (print
    "adapter.identity.authorityTtlSeconds is %d; in its last third an authority publishes its "
    "successor and outlives what it signed. Set it to %d or more, or lower "
    "adapter.identity.svidTtlSeconds or propagationSeconds.")
  (int $identity.authorityTtlSeconds) (int $least)) -}}
{{- end -}}
{{- $c := .Values.injector.certificate -}}
{{- if gt (mul 2 (int $c.lookSeconds)) (int $c.propagationSeconds) -}}
{{- fail (printf
  (print
    "injector.certificate.lookSeconds is %d, which must be at most half of "
    "injector.certificate.propagationSeconds (%d). Lower it.")
  (int $c.lookSeconds) (int $c.propagationSeconds)) -}}
{{- end -}}
{{- if lt (int $c.leafLifeSeconds) (int (mul 6 $c.propagationSeconds)) -}}
{{- fail (printf
  (print
    "injector.certificate.leafLifeSeconds is %d, which must be at least six times "
    "injector.certificate.propagationSeconds (%d).")
  (int $c.leafLifeSeconds) (int $c.propagationSeconds)) -}}
{{- end -}}
{{- if lt (int $c.authorityLifeSeconds) (int (mul 2 $c.leafLifeSeconds)) -}}
{{- fail (printf
  (print
    "injector.certificate.authorityLifeSeconds is %d, which must be at least twice "
    "injector.certificate.leafLifeSeconds (%d).")
  (int $c.authorityLifeSeconds) (int $c.leafLifeSeconds)) -}}
{{- end -}}
{{- if and (eq $c.source "secret") (or (not $c.existingSecret) (not $c.caBundle)) -}}
{{- fail (print
  "injector.certificate.source is secret: set injector.certificate.existingSecret and "
  "injector.certificate.caBundle, or use source own.") -}}
{{- end -}}
{{- end -}}

{{/* What the injector refuses of a profile when it starts. Its replicas read one ConfigMap: those
     that run would not start again. */}}
{{- define "capsign.profileChecks" -}}
{{- $least := mul 2 (add (int64 .Values.agent.journalMaxBytes) 8388608) -}}
{{- range $name, $given := .Values.agent.profiles -}}
{{- $profile := dict
  "cpuRequest" "10m" "cpuRequestMax" "500m" "memoryRequest" "64Mi" "memoryLimit" "128Mi"
  "memoryLimitMax" "512Mi" "ephemeralStorage" "32Mi" -}}
{{- $amounts := dict -}}
{{- range $key, $default := merge (dict "cpuLimit" "" "memoryLimitPerSocket" "") $profile -}}
{{- $text := get ($given | default dict) $key | default $default -}}
{{- if $text -}}
{{- $amount := include "capsign.thousandths" $text | float64 -}}
{{- if not $amount -}}
{{- fail (printf "agent.profiles.%s.%s is %s, which must be above 0." $name $key $text) -}}
{{- end -}}
{{- $_ := set $amounts $key $amount -}}
{{- end -}}
{{- end -}}
{{- range list
  (list "cpuRequest" "cpuRequestMax")
  (list "cpuRequest" "cpuLimit")
  (list "memoryRequest" "memoryLimit")
  (list "memoryLimit" "memoryLimitMax") -}}
{{- $lesser := first . -}}
{{- $greater := last . -}}
{{- if and (hasKey $amounts $greater) (gt (get $amounts $lesser) (get $amounts $greater)) -}}
{{- fail (printf
  "agent.profiles.%s.%s must not be above its %s. Lower the one or raise the other."
  $name $lesser $greater) -}}
{{- end -}}
{{- end -}}
{{- if lt (get $amounts "memoryLimit") (mulf 1000 $least) -}}
{{- fail (printf
  (print
    "agent.profiles.%s.memoryLimit must be at least %dMi: agent.journalMaxBytes is kept in that"
    " memory too. Raise it (and memoryLimitMax), or lower agent.journalMaxBytes.")
  $name (div $least 1048576)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A quantity in thousandths. */}}
{{- define "capsign.thousandths" -}}
{{- $units := dict
  "m" 1 "" 1000 "k" 1000000 "M" 1000000000 "G" 1000000000000 "T" 1000000000000000 "Ki" 1024000
  "Mi" 1048576000 "Gi" 1073741824000 "Ti" 1099511627776000 -}}
{{- mulf (regexFind "^[0-9.]+" .) (get $units (regexFind "[A-Za-z]*$" .)) -}}
{{- end -}}
