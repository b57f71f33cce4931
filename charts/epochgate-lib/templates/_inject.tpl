{{/*
Adds the sidecar to a workload. Takes a list:
  0  the dot of your chart
  1  the workload as text: what your own template makes
  2  optional: the key in your values that has the settings, if it is neither `epochgate` nor `epochgate-lib`
Gives the workload with the sidecar, its ConfigMap, and a PodMonitor where one is asked for.
*/}}
{{- define "epochgate.inject" -}}
{{- $root := index . 0 -}}
{{- $key := include "epochgate.settingsKey" . -}}
{{- $values := get $root.Values $key -}}
{{- if not (and (kindIs "map" $values) (hasKey ($values | default dict) "enabled")) -}}
{{- fail (printf "%s: epochgate-lib's own values are not in it, so nothing would be added: write `alias: %s` beside epochgate-lib under dependencies in Chart.yaml" $key $key) -}}
{{- end -}}
{{- if regexMatch "(?m)^---([ \\t\\r]|$)" (index . 1 | trim | trimPrefix "---" | trimSuffix "---") -}}
{{- fail "epochgate.inject: takes one workload, and this is more than one document; put the others beside it, outside of what is included" -}}
{{- end -}}
{{- $manifest := index . 1 | fromYaml -}}
{{- if hasKey $manifest "Error" -}}
{{- fail (printf "epochgate.inject: the workload is no YAML: %s" $manifest.Error) -}}
{{- end -}}
{{- if not (dig "metadata" "name" "" $manifest) -}}
{{- fail "epochgate.inject: the workload has no metadata.name" -}}
{{- end -}}
{{- if not $values.enabled -}}
{{- toYaml $manifest -}}
{{- else -}}
{{- $one := dict "root" $root "values" $values "role" $values.role "path" (printf "%s." $key) -}}
{{- $_ := set $one "name" $manifest.metadata.name -}}
{{- $_ := set $one "namespace" $manifest.metadata.namespace -}}
{{- $_ := set $one "configMap" (printf "%s-%s" ($manifest.metadata.name | trunc 50 | trimSuffix "-") $key) -}}
{{- include "epochgate.judgeSidecar" (list $one $manifest) -}}
{{- $template := include "epochgate.podTemplate" (list $one $manifest) | fromYaml -}}
{{- if eq $manifest.kind "Pod" -}}
{{- $_ := set $manifest "metadata" $template.metadata -}}
{{- $_ := set $manifest "spec" $template.spec -}}
{{- else if eq $manifest.kind "CronJob" -}}
{{- $_ := set $manifest.spec.jobTemplate.spec "template" $template -}}
{{- else -}}
{{- $_ := set $manifest.spec "template" $template -}}
{{- end -}}
{{- if include "epochgate.usesClaimTemplate" (list $one $manifest) -}}
{{- $claims := append ($manifest.spec.volumeClaimTemplates | default list) (include "epochgate.claimTemplate" $one | fromYaml) -}}
{{- $_ := set $manifest.spec "volumeClaimTemplates" $claims -}}
{{- end -}}
{{- toYaml $manifest }}
---
{{ include "epochgate.configMap" $one }}
{{- if $values.podMonitor.enabled }}
---
{{ include "epochgate.sidecarMonitor" (list $one $manifest) }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* Where in the values the settings stand. */}}
{{- define "epochgate.settingsKey" -}}
{{- $values := (index . 0).Values -}}
{{- if gt (len .) 2 -}}
{{- $key := index . 2 -}}
{{- if not (hasKey $values $key) -}}{{- fail (printf "%s: there is no such key in the values; name epochgate-lib so in Chart.yaml, with alias" $key) -}}{{- end -}}
{{- $key -}}
{{- else if hasKey $values "epochgate" -}}epochgate
{{- else if hasKey $values "epochgate-lib" -}}epochgate-lib
{{- else -}}{{- fail "epochgate: no settings in the values: name epochgate-lib under dependencies in Chart.yaml, with `alias: epochgate`" -}}
{{- end -}}
{{- end -}}

{{/* What pods with this sidecar are found by, whatever other labels they have. */}}
{{- define "epochgate.sidecarLabels" -}}
epochgate.dev/role: {{ .role }}
epochgate.dev/workload: {{ .name | trunc 63 | trimAll "-." | quote }}
{{- end -}}

{{/* The pod template of a workload with the sidecar in it. */}}
{{- define "epochgate.podTemplate" -}}
{{- $one := index . 0 -}}
{{- $manifest := index . 1 -}}
{{- $template := include "epochgate.ownTemplate" $manifest | fromYaml -}}
{{- $spec := $template.spec -}}
{{- $metadata := $template.metadata | default dict -}}
{{- $labels := merge (include "epochgate.sidecarLabels" $one | fromYaml) ($metadata.labels | default dict) -}}
{{- $_ := set $metadata "labels" $labels -}}
{{- if $one.values.rolloutOnConfigChange -}}
{{- $sum := include "epochgate.config" $one | sha256sum -}}
{{- $_ := set $metadata "annotations" (merge (dict "checksum/epochgate" $sum) ($metadata.annotations | default dict)) -}}
{{- end -}}
{{- $container := include "epochgate.container" $one | fromYaml -}}
{{- if $one.values.nativeSidecar -}}
{{- $_ := set $container "restartPolicy" "Always" -}}
{{- /* First of all: what the service does while it is made ready may write too. */ -}}
{{- $_ := set $spec "initContainers" (prepend ($spec.initContainers | default list) $container) -}}
{{- else -}}
{{- $_ := set $spec "containers" (append $spec.containers $container) -}}
{{- end -}}
{{- $volumes := dict "secretMode" (ternary 288 292 (hasKey ($spec.securityContext | default dict) "fsGroup")) -}}
{{- $_ := set $volumes "claimTemplate" (include "epochgate.usesClaimTemplate" .) -}}
{{- $own := include "epochgate.volumes" (merge $volumes $one) | fromYamlArray -}}
{{- $_ := set $spec "volumes" (concat ($spec.volumes | default list) $own) -}}
{{- $_ := set $spec "terminationGracePeriodSeconds" (include "epochgate.podStopSeconds" (list $one $spec) | int) -}}
{{- $_ := set $template "metadata" $metadata -}}
{{- $_ := set $template "spec" $spec -}}
{{- toYaml $template -}}
{{- end -}}

{{/* The pod template that a workload has. */}}
{{- define "epochgate.ownTemplate" -}}
{{- if eq .kind "Pod" -}}{{- toYaml (dict "metadata" .metadata "spec" .spec) -}}
{{- else if eq .kind "CronJob" -}}{{- toYaml .spec.jobTemplate.spec.template -}}
{{- else -}}{{- toYaml .spec.template -}}
{{- end -}}
{{- end -}}

{{/* A StatefulSet makes the volume of a sole guard itself. */}}
{{- define "epochgate.usesClaimTemplate" -}}
{{- $one := index . 0 -}}
{{- $kind := (index . 1).kind -}}
{{- if and (eq $one.role "guard") (eq $kind "StatefulSet") $one.values.persistence.enabled (not $one.values.persistence.existingClaim) -}}yes{{- end -}}
{{- end -}}

{{/* A native sidecar is told to stop when the others have ended, so it needs its time besides theirs; else all are told at once. */}}
{{- define "epochgate.podStopSeconds" -}}
{{- $one := index . 0 -}}
{{- $theirs := (index . 1).terminationGracePeriodSeconds | default 30 | int64 -}}
{{- $ours := include "epochgate.stopSeconds" $one | int64 -}}
{{- ternary (add $theirs $ours) (max $theirs $ours) $one.values.nativeSidecar -}}
{{- end -}}

{{/* What only a sidecar can get wrong. */}}
{{- define "epochgate.judgeSidecar" -}}
{{- $one := index . 0 -}}
{{- $manifest := index . 1 -}}
{{- $kinds := list "Deployment" "StatefulSet" "DaemonSet" "ReplicaSet" "Job" "CronJob" "Pod" -}}
{{- if not (has $manifest.kind $kinds) -}}
{{- fail (printf "epochgate.inject: a %s has no pods; it takes one of %s" $manifest.kind (join ", " $kinds)) -}}
{{- end -}}
{{- $spec := (include "epochgate.ownTemplate" $manifest | fromYaml).spec -}}
{{- range concat ($spec.initContainers | default list) $spec.containers -}}
{{- if eq .name "epochgate" -}}{{- fail (printf "epochgate.inject: %s %s has a container epochgate already" $manifest.kind $manifest.metadata.name) -}}{{- end -}}
{{- end -}}
{{- if $spec.hostNetwork -}}
{{- fail (printf "epochgate.inject: %s %s is on its node's network: the sidecar's ports would be the node's, and 127.0.0.1 is everybody's there" $manifest.kind $manifest.metadata.name) -}}
{{- end -}}
{{- include "epochgate.judgeOthersPorts" (list $one $spec) -}}
{{- $version := $one.root.Capabilities.KubeVersion.Version -}}
{{- if and $one.values.nativeSidecar (not (semverCompare ">=1.29.0-0" $version)) -}}
{{- include "epochgate.refuse" (list $one "nativeSidecar" (printf "Kubernetes %s has no native sidecars, 1.29 is the first; set it to false" $version)) -}}
{{- end -}}
{{- if and (not $one.values.nativeSidecar) (has $manifest.kind (list "Job" "CronJob")) -}}
{{- include "epochgate.refuse" (list $one "nativeSidecar" (printf "a %s never completes beside a sidecar that is not native; set it to true" $manifest.kind)) -}}
{{- end -}}
{{- if and (eq $one.role "guard") $one.values.persistence.enabled -}}
{{- include "epochgate.judgeVolume" (list $one $manifest $spec) -}}
{{- end -}}
{{- include "epochgate.judgeAddress" $one -}}
{{- if eq $one.role "stamp" -}}
{{- if $one.values.persistence.enabled -}}
{{- include "epochgate.refuse" (list $one "persistence.enabled" "a stamp keeps nothing; it is for guards") -}}
{{- end -}}
{{- if $one.values.mode -}}
{{- include "epochgate.refuse" (list $one "mode" "is a guard's; a stamp has none") -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* All containers of a pod share its ports. */}}
{{- define "epochgate.judgeOthersPorts" -}}
{{- $one := index . 0 -}}
{{- $spec := index . 1 -}}
{{- $names := list (include "epochgate.adminPortName" $one) -}}
{{- range include "epochgate.ports" $one | fromYamlArray -}}{{- $names = append $names .name -}}{{- end -}}
{{- $keys := include "epochgate.portKeys" $one | fromYaml -}}
{{- range $container := concat ($spec.initContainers | default list) $spec.containers -}}
{{- range $port := $container.ports | default list -}}
{{- with get $keys (toString (int $port.containerPort)) -}}
{{- include "epochgate.refuse" (list $one . (printf "the container %s has the port %d too; one of the two needs another" $container.name (int $port.containerPort))) -}}
{{- end -}}
{{- if has ($port.name | default "") $names -}}
{{- fail (printf "epochgate.inject: the container %s has a port with the name %s, which is the sidecar's; give it another" $container.name $port.name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* An address that others are told has to be one that they can reach. */}}
{{- define "epochgate.judgeAddress" -}}
{{- if .values.advertise -}}
{{- if ne .role "stamp" -}}
{{- include "epochgate.refuse" (list . "advertise" "is a stamp's") -}}
{{- end -}}
{{- if hasPrefix "127." (include "epochgate.bind" .) -}}
{{- include "epochgate.refuse" (list . "advertise" (printf "names an address for others, and the stamp listens on %s: set bind, to 0.0.0.0" (include "epochgate.bind" .))) -}}
{{- end -}}
{{- if gt (len (include "epochgate.listeners" . | fromYamlArray)) 1 -}}
{{- include "epochgate.refuse" (list . "advertise" "is for a stamp with one listener; with several write it into each under listeners") -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "epochgate.judgeVolume" -}}
{{- $one := index . 0 -}}
{{- $manifest := index . 1 -}}
{{- $spec := index . 2 -}}
{{- if not (has $manifest.kind (list "Deployment" "StatefulSet" "Pod")) -}}
{{- include "epochgate.refuse" (list $one "persistence.enabled" (printf "makes a sole guard, and a %s may have several pods at a time" $manifest.kind)) -}}
{{- end -}}
{{- $replicas := ternary ($manifest.spec.replicas | default 1) 1 (hasKey $manifest.spec "replicas") | int -}}
{{- if gt $replicas 1 -}}
{{- include "epochgate.refuse" (list $one "persistence.enabled" (printf "makes a sole guard, and %s %s has %d replicas: each would be another guard of the same target, and all but one stay shut. Set it to false: they are shared then, and agree" $manifest.kind $manifest.metadata.name $replicas)) -}}
{{- end -}}
{{- if and (ne $manifest.kind "StatefulSet") (not $one.values.persistence.existingClaim) -}}
{{- include "epochgate.refuse" (list $one "persistence.existingClaim" (printf "name one: a %s has no claim templates" $manifest.kind)) -}}
{{- end -}}
{{- if and (eq $manifest.kind "Deployment") (ne (dig "strategy" "type" "" $manifest.spec) "Recreate") -}}
{{- include "epochgate.refuse" (list $one "persistence.enabled" (printf "makes a sole guard, and Deployment %s would start the new pod beside the old one: set its strategy.type to Recreate" $manifest.metadata.name)) -}}
{{- end -}}
{{- if kindIs "invalid" (get ($spec.securityContext | default dict) "fsGroup" | default nil) -}}
{{- include "epochgate.refuse" (list $one "persistence.enabled" (printf "the guard does not run as root: set securityContext.fsGroup of the pods of %s %s, so that it may write to its volume" $manifest.kind $manifest.metadata.name)) -}}
{{- end -}}
{{- end -}}

{{/* A PodMonitor that finds the pods as the workload itself does. */}}
{{- define "epochgate.sidecarMonitor" -}}
{{- $one := index . 0 -}}
{{- $manifest := index . 1 -}}
{{- $labels := dig "spec" "selector" "matchLabels" dict $manifest -}}
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  name: {{ $one.configMap }}
  {{- with $one.namespace }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "epochgate.labels" $one | nindent 4 }}
    {{- with $one.values.podMonitor.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  selector:
    matchLabels:
      {{- merge (include "epochgate.sidecarLabels" $one | fromYaml) $labels | toYaml | nindent 6 }}
  podMetricsEndpoints:
    - port: {{ include "epochgate.adminPortName" $one }}
      path: /metrics
      interval: {{ $one.values.podMonitor.interval }}
      {{- with $one.values.podMonitor.endpoint }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
{{- end -}}
