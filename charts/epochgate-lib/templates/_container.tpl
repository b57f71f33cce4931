{{/* The container, without what makes it a sidecar. */}}
{{- define "epochgate.container" -}}
name: epochgate
image: {{ include "epochgate.image" . }}
imagePullPolicy: {{ .values.image.pullPolicy }}
args:
  - run
  {{- range .values.extraArgs }}
  - {{ . | quote }}
  {{- end }}
env:
  {{- toYaml (include "epochgate.env" . | fromYamlArray) | nindent 2 }}
{{- with .values.envFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  {{- range include "epochgate.ports" . | fromYamlArray }}
  - name: {{ .name }}
    containerPort: {{ .port }}
  {{- end }}
  - name: {{ include "epochgate.adminPortName" . }}
    containerPort: {{ .values.admin.port }}
{{- /* None of them depends on etcd: a process without it is well, and a restart would only cost it its memory. */}}
startupProbe:
  httpGet: { path: /livez, port: {{ include "epochgate.adminPortName" . }} }
  {{- toYaml .values.probes.startup | nindent 2 }}
livenessProbe:
  httpGet: { path: /livez, port: {{ include "epochgate.adminPortName" . }} }
  {{- toYaml .values.probes.liveness | nindent 2 }}
readinessProbe:
  httpGet: { path: {{ .values.probes.readinessPath }}, port: {{ include "epochgate.adminPortName" . }} }
  {{- toYaml .values.probes.readiness | nindent 2 }}
resources:
  {{- toYaml .values.resources | nindent 2 }}
securityContext:
  {{- toYaml .values.securityContext | nindent 2 }}
terminationMessagePolicy: FallbackToLogsOnError
volumeMounts:
  {{- include "epochgate.volumeMounts" . | nindent 2 }}
{{- end -}}

{{/* In a pod of somebody else the name is not to collide with one of its own. */}}
{{- define "epochgate.adminPortName" -}}
{{- ternary "eg-admin" "admin" (ne .path "") -}}
{{- end -}}

{{/* A list. The order counts: a variable may use those before it, and the last of a name wins. */}}
{{- define "epochgate.env" -}}
{{- $env := list (dict "name" "EPOCHGATE_CONFIG" "value" "/etc/epochgate/epochgate.yaml") -}}
{{- $env = append $env (dict "name" "EPOCHGATE_ID" "valueFrom" (dict "fieldRef" (dict "fieldPath" "metadata.name"))) -}}
{{- $env = append $env (dict "name" "EPOCHGATE_ADMIN" "value" (printf "%s:%v" .values.admin.bind .values.admin.port)) -}}
{{- if .values.advertise -}}
{{- $env = append $env (dict "name" "POD_IP" "valueFrom" (dict "fieldRef" (dict "fieldPath" "status.podIP"))) -}}
{{- $env = append $env (dict "name" "EPOCHGATE_ADVERTISE" "value" .values.advertise) -}}
{{- end -}}
{{- range $name, $value := .values.extraEnv -}}
{{- if kindIs "map" $value -}}
{{- $env = append $env (merge (dict "name" $name) $value) -}}
{{- else -}}
{{- $env = append $env (dict "name" $name "value" (toString $value)) -}}
{{- end -}}
{{- end -}}
{{- toYaml $env -}}
{{- end -}}

{{- define "epochgate.volumeMounts" -}}
{{- /* The folder, not the file by subPath: only a folder shows what has changed. */ -}}
- name: epochgate-config
  mountPath: /etc/epochgate
  readOnly: true
{{- range $folder, $_ := include "epochgate.secrets" . | fromYaml }}
- name: epochgate-{{ $folder }}
  mountPath: /run/secrets/epochgate/{{ $folder }}
  readOnly: true
{{- end }}
{{- if eq .role "guard" }}
- name: epochgate-state
  mountPath: /var/lib/epochgate
{{- end }}
{{- range $name, $mount := .values.extraVolumeMounts }}
- {{ merge (dict "name" $name) $mount | toYaml | nindent 2 | trim }}
{{- end }}
{{- end -}}

{{/* The volumes of a pod. One that has its state in a claim template of a StatefulSet says so with `claimTemplate`. */}}
{{- define "epochgate.volumes" -}}
{{- $mode := .secretMode | default 288 -}}
- name: epochgate-config
  configMap:
    name: {{ .configMap }}
{{- range $folder, $secret := include "epochgate.secrets" . | fromYaml }}
- name: epochgate-{{ $folder }}
  secret:
    secretName: {{ $secret }}
    defaultMode: {{ $mode }}
{{- end }}
{{- if and (eq .role "guard") (not .claimTemplate) }}
- name: epochgate-state
  {{- if and .values.persistence.enabled (not .stateless) }}
  persistentVolumeClaim:
    claimName: {{ .values.persistence.existingClaim }}
  {{- else }}
  emptyDir:
    sizeLimit: 64Mi
  {{- end }}
{{- end }}
{{- range $name, $source := .values.extraVolumes }}
- {{ merge (dict "name" $name) $source | toYaml | nindent 2 | trim }}
{{- end }}
{{- end -}}

{{/* The claim that a sole guard keeps its floors in. */}}
{{- define "epochgate.claimTemplate" -}}
metadata:
  name: epochgate-state
spec:
  accessModes:
    - {{ .values.persistence.accessMode }}
  {{- with .values.persistence.storageClass }}
  storageClassName: {{ . }}
  {{- end }}
  resources:
    requests:
      storage: {{ .values.persistence.size }}
{{- end -}}

{{/* The ConfigMap, whole. */}}
{{- define "epochgate.configMap" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .configMap }}
  {{- with .namespace }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "epochgate.labels" . | nindent 4 }}
data:
  epochgate.yaml: |
    {{- include "epochgate.config" . | nindent 4 }}
{{- end -}}
