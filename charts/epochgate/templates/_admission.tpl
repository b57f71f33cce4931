{{/* A value as CEL. Takes a list: the type of CEL that a mapping has ("" for one of keys that are free), the value. */}}
{{- define "admission.cel" -}}
{{- $type := index . 0 -}}
{{- $value := index . 1 -}}
{{- if kindIs "map" $value -}}
{{- $fields := list -}}
{{- range $key, $inner := $value -}}
{{- $free := or (not $type) (has $key (list "requests" "limits")) -}}
{{- $cel := include "admission.cel" (list (ternary "" (printf "%s.%s" $type $key) $free) $inner) -}}
{{- $fields = append $fields (printf "%s: %s" (ternary $key (toJson $key) (ne $type "")) $cel) -}}
{{- end -}}
{{- printf "%s{%s}" $type (join ", " $fields) -}}
{{- else if kindIs "slice" $value -}}
{{- $items := list -}}
{{- range $value }}{{ $items = append $items (include "admission.cel" (list $type .)) }}{{ end -}}
{{- printf "[%s]" (join ", " $items) -}}
{{- else if and (kindIs "float64" $value) (not $type) -}}
{{- /* A quantity: they are all of one type, as text. */ -}}
{{- toJson (toString $value) -}}
{{- else if kindIs "float64" $value -}}
{{- /* YAML has been read as JSON, where every number is one of these. */ -}}
{{- int64 $value -}}
{{- else -}}
{{- toJson $value -}}
{{- end -}}
{{- end -}}

{{/* What the library's templates take, for a sidecar of which nothing is known but its role: its listeners are its ConfigMap's. */}}
{{- define "admission.one" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
{{- $v := $root.Values -}}
{{- $values := dict "image" $v.image "admin" $v.admin "probes" $v.probes "resources" $v.resources "securityContext" $v.securityContext -}}
{{- $_ := set $values "secretMounts" (get $v.admission $role).secretMounts -}}
{{- $_ := set $values "extraEnv" (ternary (dict "EPOCHGATE_STATE_DIR" "/var/lib/epochgate/state") dict (eq $role "guard")) -}}
{{- $_ := set $values "etcd" (dict "tls" (dict "existingSecret" "") "user" (dict "existingSecret" "")) -}}
{{- $_ := set $values "tls" (dict "existingSecret" "") -}}
{{- $_ := set $values "upstream" (dict "url" "") -}}
{{- range $key := list "advertise" "protocol" "resource" "port" "bind" "mode" }}{{ $_ := set $values $key "" }}{{ end -}}
{{- range $key := list "listeners" "config" "envFrom" "extraVolumes" "extraVolumeMounts" "listener" }}{{ $_ := set $values $key dict }}{{ end -}}
{{- $_ := set $values "extraArgs" list -}}
{{- $_ := set $values "persistence" (dict "enabled" false) -}}
{{- toYaml $values -}}
{{- end -}}

{{/* The container, as CEL. */}}
{{- define "admission.container" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
{{- $one := dict "root" $root "values" (include "admission.one" . | fromYaml) "role" $role "path" "admission." "name" "" -}}
{{- $container := include "epochgate.container" $one | fromYaml -}}
{{- $_ := set $container "restartPolicy" "Always" -}}
{{- include "admission.cel" (list "Object.spec.initContainers" $container) -}}
{{- end -}}

{{/* Its volumes, each as CEL, on a line of its own. */}}
{{- define "admission.volumes" -}}
{{- $role := index . 1 -}}
{{- $volumes := list "Object.spec.volumes{name: \"epochgate-config\", configMap: Object.spec.volumes.configMap{name: variables.configMap}}" -}}
{{- range $folder, $secret := (get (index . 0).Values.admission $role).secretMounts -}}
{{- $source := printf "Object.spec.volumes.secret{secretName: %s, defaultMode: variables.secretMode}" (toJson $secret) -}}
{{- $volumes = append $volumes (printf "Object.spec.volumes{name: %s, secret: %s}" (toJson (printf "epochgate-%s" $folder)) $source) -}}
{{- end -}}
{{- if eq $role "guard" -}}
{{- $claim := "Object.spec.volumes{name: \"epochgate-state\", persistentVolumeClaim: Object.spec.volumes.persistentVolumeClaim{claimName: variables.annotations[\"epochgate.dev/state-claim\"]}}" -}}
{{- $folder := "Object.spec.volumes{name: \"epochgate-state\", emptyDir: Object.spec.volumes.emptyDir{sizeLimit: \"64Mi\"}}" -}}
{{- $volumes = append $volumes (printf "\"epochgate.dev/state-claim\" in variables.annotations ? %s : %s" $claim $folder) -}}
{{- end -}}
{{- range $volumes }}
[JSONPatch{op: "add", path: "/spec/volumes/-", value: {{ . }}}]
{{- end -}}
{{- end -}}

{{/* The version of MutatingAdmissionPolicy. */}}
{{- define "admission.version" -}}
{{- $kubernetes := .Capabilities.KubeVersion.Version -}}
{{- if .Values.admission.apiVersion -}}{{- .Values.admission.apiVersion -}}
{{- else if semverCompare ">=1.36.0-0" $kubernetes -}}v1
{{- else if semverCompare ">=1.34.0-0" $kubernetes -}}v1beta1
{{- else -}}{{- fail (printf "admission.mutate: Kubernetes %s has no MutatingAdmissionPolicy, 1.34 is the first; set it to false, and add sidecars with epochgate inject" $kubernetes) -}}
{{- end -}}
{{- end -}}

{{/* Fails where the values of admission are ones that cannot be. */}}
{{- define "admission.judge" -}}
{{- if semverCompare "<1.30.0-0" .Capabilities.KubeVersion.Version -}}
{{- fail (printf "admission.enabled: Kubernetes %s has no ValidatingAdmissionPolicy, 1.30 is the first; add sidecars with epochgate inject" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- $admission := .Values.admission -}}
{{- range $role := list "stamp" "guard" -}}
{{- range $folder := list "config" "state" -}}
{{- if hasKey (get $admission $role).secretMounts $folder -}}
{{- fail (printf "admission.%s.secretMounts.%s: the chart uses this folder itself; give it another name" $role $folder) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Which namespaces. */}}
{{- define "admission.namespaces" -}}
{{- $v := .Values.admission -}}
{{- $selector := deepCopy ($v.namespaceSelector | default dict) -}}
{{- $expressions := $selector.matchExpressions | default list -}}
{{- with $v.excludedNamespaces -}}
{{- $expressions = append $expressions (dict "key" "kubernetes.io/metadata.name" "operator" "NotIn" "values" .) -}}
{{- end -}}
{{- with $expressions -}}{{- $_ := set $selector "matchExpressions" . -}}{{- end -}}
{{- toYaml $selector -}}
{{- end -}}

{{/* Which pods: those that are made, with one of these values of the label, in the namespaces that are meant. */}}
{{- define "admission.matchConstraints" -}}
matchPolicy: Equivalent
namespaceSelector:
  {{- include "admission.namespaces" (index . 0) | nindent 2 }}
objectSelector:
  matchExpressions:
    {{- with index . 1 }}
    - { key: epochgate.dev/inject, operator: In, values: {{ toJson . }} }
    {{- else }}
    - { key: epochgate.dev/inject, operator: Exists }
    {{- end }}
resourceRules:
  - apiGroups: [""]
    apiVersions: [v1]
    resources: [pods]
    # A pod gets its containers when it is made, and never again.
    operations: [CREATE]
{{- end -}}
