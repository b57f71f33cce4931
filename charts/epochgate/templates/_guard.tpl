{{/* What only this chart can get wrong. */}}
{{- define "guard.judge" -}}
{{- $v := .values -}}
{{- if and $v.persistence.enabled (gt (int $v.replicas) 1) -}}
{{- include "epochgate.refuse" (list . "replicas" (printf "is %d, and persistence.enabled makes a sole guard, of which there is one. Set replicas=1, or persistence.enabled=false for several that agree" (int $v.replicas))) -}}
{{- end -}}
{{- range $key := list "podLabels" "commonLabels" -}}
{{- range $label := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "epochgate.dev/role" -}}
{{- if hasKey (get $v $key | default dict) $label -}}
{{- include "epochgate.refuse" (list $ (printf "%s.%s" $key $label) "is what the chart's own objects are found by, and cannot be another") -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $least := include "epochgate.stopSeconds" . | int -}}
{{- if and $v.terminationGracePeriodSeconds (lt (int $v.terminationGracePeriodSeconds) $least) -}}
{{- include "epochgate.refuse" (list . "terminationGracePeriodSeconds" (printf "is %d, and what is in flight gets config.shutdown.grace: at least %d, or nothing for just that. A guard that is killed leaves residue" (int $v.terminationGracePeriodSeconds) $least)) -}}
{{- end -}}
{{- if and $v.networkPolicy.target.enabled (not $v.networkPolicy.target.podSelector) -}}
{{- include "epochgate.refuse" (list . "networkPolicy.target.podSelector" "say which pods are the target, by their labels; an empty selector would shut the whole namespace off") -}}
{{- end -}}
{{- if and $v.networkPolicy.target.enabled (not (include "guard.targetPorts" . | fromYamlArray)) -}}
{{- include "epochgate.refuse" (list . "networkPolicy.target.ports" "name the target's ports: no upstream has one in its URL") -}}
{{- end -}}
{{- if and $v.podDisruptionBudget.enabled $v.podDisruptionBudget.minAvailable $v.podDisruptionBudget.maxUnavailable -}}
{{- include "epochgate.refuse" (list . "podDisruptionBudget.minAvailable" "excludes maxUnavailable; set one of them to null") -}}
{{- end -}}
{{- end -}}

{{/* The pods: the same in a Deployment and in a StatefulSet. */}}
{{- define "guard.podTemplate" -}}
{{- $v := .values -}}
metadata:
  labels:
    {{- include "epochgate.selectorLabels" . | nindent 4 }}
    epochgate.dev/role: guard
    {{- with merge (dict) ($v.podLabels | default dict) ($v.commonLabels | default dict) }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- $sum := dict }}
  {{- if $v.rolloutOnConfigChange }}{{ $sum = dict "checksum/config" (include "epochgate.config" . | sha256sum) }}{{ end }}
  {{- with merge $sum ($v.podAnnotations | default dict) }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "guard.serviceAccount" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $v.terminationGracePeriodSeconds | default (include "epochgate.stopSeconds" .) }}
  securityContext:
    {{- toYaml $v.podSecurityContext | nindent 4 }}
  {{- with $v.imagePullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  {{- with $v.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $v.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.podSpec }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- if and $v.spread (gt (int $v.replicas) 1) (not (hasKey ($v.podSpec | default dict) "topologySpreadConstraints")) }}
  topologySpreadConstraints:
    - topologyKey: {{ $v.spread }}
      maxSkew: 1
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "epochgate.selectorLabels" . | nindent 10 }}
  {{- end }}
  {{- with $v.initContainers }}
  initContainers:
    {{- range $name, $container := . }}
    - {{ merge (dict "name" $name) $container | toYaml | nindent 6 | trim }}
    {{- end }}
  {{- end }}
  containers:
    - {{ include "epochgate.container" . | nindent 6 | trim }}
    {{- range $name, $container := $v.extraContainers }}
    - {{ merge (dict "name" $name) $container | toYaml | nindent 6 | trim }}
    {{- end }}
  volumes:
    {{- $claim := and $v.persistence.enabled (not $v.persistence.existingClaim) }}
    {{- include "epochgate.volumes" (merge (dict "claimTemplate" $claim) .) | nindent 4 }}
{{- end -}}

{{- define "guard.serviceAccount" -}}
{{- .values.serviceAccount.name | default (ternary .name "default" .values.serviceAccount.create) -}}
{{- end -}}

{{/* What every object of the chart begins its metadata with. */}}
{{- define "guard.metadata" -}}
name: {{ .name }}{{ .suffix }}
namespace: {{ .namespace }}
labels:
  {{- include "epochgate.labels" . | nindent 2 }}
{{- end -}}

{{/* The ports that the target is reached at: a list of numbers. */}}
{{- define "guard.targetPorts" -}}
{{- $ports := list -}}
{{- if .values.networkPolicy.target.ports -}}
{{- $ports = .values.networkPolicy.target.ports -}}
{{- else -}}
{{- range include "epochgate.listeners" . | fromYamlArray -}}
{{- $url := .upstream.url -}}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+/?$" $url | trimSuffix "/") -}}
{{- if and (not $port) (not (hasPrefix "unix:" $url)) -}}
{{- $port = get (dict "http" "80" "https" "443" "postgres" "5432" "redis" "6379" "rediss" "6379") (regexFind "^[a-z]+" $url) -}}
{{- end -}}
{{- if and $port (not (has (int $port) $ports)) -}}{{- $ports = append $ports (int $port) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $ports -}}
{{- end -}}
