{{/*
Every template of this library but `epochgate.inject` takes a dictionary, called "one" in these comments:
  root    what Helm passes to a template: the dot of the chart that includes
  values  the settings, in the form of this library's values.yaml
  name    what the objects are called
  role    guard or stamp
  path    where the settings stand in values.yaml, for messages: "" or "epochgate."
*/}}

{{/* The name of the objects of a chart: the release's, since that is what people choose it for. */}}
{{- define "epochgate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if .Chart.IsRoot -}}
{{- .Release.Name | replace "." "-" | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels of every object. */}}
{{- define "epochgate.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | default .root.Chart.Version | replace "+" "_" | quote }}
{{ include "epochgate.selectorLabels" . }}
{{- with .values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The labels that pods are found by. They may never change: a Deployment's selector is immutable. */}}
{{- define "epochgate.selectorLabels" -}}
app.kubernetes.io/name: epochgate
app.kubernetes.io/instance: {{ .name }}
{{- end -}}

{{/* The image: a digest goes over a tag, a tag over the version of the chart's program. */}}
{{- define "epochgate.image" -}}
{{- $image := .values.image -}}
{{- $repository := $image.repository -}}
{{- with $image.registry }}{{ $repository = printf "%s/%s" . $repository }}{{ end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository ($image.tag | default (include "epochgate.version" .)) -}}
{{- end -}}
{{- end -}}

{{/* The version of the program that this library was made for. */}}
{{- define "epochgate.version" -}}
0.1.0
{{- end -}}

{{/* Stops with a message that begins with the key. Takes a list: one, the key, what is wrong and what to do. */}}
{{- define "epochgate.refuse" -}}
{{- $one := index . 0 -}}
{{- fail (printf "%s%s: %s" $one.path (index . 1) (index . 2)) -}}
{{- end -}}

{{/* Whole seconds of a duration such as 250ms, 5s, 2m or 1h, rounded up. */}}
{{- define "epochgate.seconds" -}}
{{- $number := regexFind "^[0-9]+" . | int64 -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- if eq $unit "ms" -}}{{ div (add $number 999) 1000 }}
{{- else -}}{{ mul $number (get (dict "s" 1 "m" 60 "h" 3600) $unit) }}
{{- end -}}
{{- end -}}
