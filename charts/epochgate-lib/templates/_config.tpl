{{/*
epochgate.yaml: what is under `config` as it is, with what the chart knows: the coordinator, the listeners, where state is
and where the admin side listens. One key is written in one place; a second place is refused.
*/}}
{{- define "epochgate.config" -}}
{{- include "epochgate.judge" . -}}
{{- $config := deepCopy (.values.config | default dict) -}}
{{- $etcd := dict "endpoints" .values.etcd.endpoints -}}
{{- with .values.etcd.tls -}}
{{- if .existingSecret -}}
{{- $tls := dict "ca" (include "epochgate.secretFile" (list "etcd-tls" .ca)) -}}
{{- if .cert -}}
{{- $_ := set $tls "cert" (include "epochgate.secretFile" (list "etcd-tls" .cert)) -}}
{{- $_ := set $tls "key" (include "epochgate.secretFile" (list "etcd-tls" .key)) -}}
{{- end -}}
{{- $_ := set $etcd "tls" $tls -}}
{{- end -}}
{{- end -}}
{{- with .values.etcd.user -}}
{{- if .name -}}
{{- $_ := set $etcd "user" (dict "name" .name "password_file" (include "epochgate.secretFile" (list "etcd-user" .passwordKey))) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $config "coordinator" (merge (dict "etcd" $etcd) ($config.coordinator | default dict)) -}}
{{- if .values.etcd.prefix -}}{{- $_ := set $config.coordinator "prefix" .values.etcd.prefix -}}{{- end -}}
{{- $_ := set $config "admin" (merge (dict "listen" (printf "%s:%v" .values.admin.bind .values.admin.port)) ($config.admin | default dict)) -}}
{{- if eq .role "guard" -}}
{{- /* A folder of its own inside the volume: epochgate makes it, for itself alone, and a disk's lost+found stays outside. */ -}}
{{- $_ := set $config "state_dir" "/var/lib/epochgate/state" -}}
{{- end -}}
{{- $resources := deepCopy ($config.resources | default dict) -}}
{{- if and .values.resource (not (include "epochgate.isListed" (list .values.resource $resources))) -}}
{{- $_ := set $resources .values.resource dict -}}
{{- end -}}
{{- $_ := set $config "resources" $resources -}}
{{- $_ := set $config "listeners" (include "epochgate.listeners" . | fromYamlArray) -}}
{{- toYaml $config -}}
{{- end -}}

{{/* All listeners, the one of `resource` and `upstream` first. */}}
{{- define "epochgate.listeners" -}}
{{- $one := . -}}
{{- $listeners := list -}}
{{- if .values.upstream.url -}}
{{- $slug := .values.resource | default (.name | trimSuffix "-guard" | trimSuffix "-stamp") | replace "/" "-" -}}
{{- $own := dict "name" (printf "%s-%s" $slug .role | trunc -63) "role" .role "protocol" .values.protocol -}}
{{- $_ := set $own "listen" (printf "%s:%s" (include "epochgate.bind" .) (include "epochgate.port" .)) -}}
{{- $_ := set $own "upstream" .values.upstream -}}
{{- if .values.resource -}}{{- $_ := set $own "resource" .values.resource -}}{{- end -}}
{{- if and (eq .role "guard") .values.mode -}}{{- $_ := set $own "mode" .values.mode -}}{{- end -}}
{{- with .values.tls -}}
{{- if .existingSecret -}}
{{- $tls := dict "cert" (include "epochgate.secretFile" (list "tls" .cert)) "key" (include "epochgate.secretFile" (list "tls" .key)) -}}
{{- if .clientCa -}}{{- $_ := set $tls "client_ca" (include "epochgate.secretFile" (list "tls" .clientCa)) -}}{{- end -}}
{{- $_ := set $own "tls" $tls -}}
{{- end -}}
{{- end -}}
{{- $own = merge (deepCopy ($one.values.listener | default dict)) $own -}}
{{- $listeners = append $listeners (include "epochgate.door" (list . $own) | fromYaml) -}}
{{- end -}}
{{- range $name, $listener := .values.listeners -}}
{{- $more := merge (deepCopy $listener) (dict "name" $name "role" $one.role) -}}
{{- $listeners = append $listeners (include "epochgate.door" (list $one $more) | fromYaml) -}}
{{- end -}}
{{- toYaml $listeners -}}
{{- end -}}

{{/* A listener with the kind of door that its state allows: without a volume it is one of several, also where it is alone. */}}
{{- define "epochgate.door" -}}
{{- $one := index . 0 -}}
{{- $listener := index . 1 -}}
{{- if eq $listener.role "guard" -}}
{{- $_ := set $listener "doors" (include "epochgate.doors" $one) -}}
{{- end -}}
{{- toYaml $listener -}}
{{- end -}}

{{/* sole with a volume of its own, else shared. */}}
{{- define "epochgate.doors" -}}
{{- ternary "sole" "shared" .values.persistence.enabled -}}
{{- end -}}

{{/* Whether a resource is under `resources`, by its name or in a range such as orders/{0..63}. */}}
{{- define "epochgate.isListed" -}}
{{- $resource := index . 0 -}}
{{- range $key, $_ := index . 1 -}}
{{- $form := regexReplaceAll "[{][0-9]+[.][.][0-9]+[}]" ($key | replace "." "[.]" | replace "[.][.]" "..") "[0-9]+" -}}
{{- if regexMatch (printf "^%s$" $form) $resource -}}yes{{- end -}}
{{- end -}}
{{- end -}}

{{/* The file of a key of a mounted Secret. */}}
{{- define "epochgate.secretFile" -}}
{{- printf "/run/secrets/epochgate/%s/%s" (index . 0) (index . 1) -}}
{{- end -}}

{{/* The folders that Secrets are mounted at, with the Secret of each. */}}
{{- define "epochgate.secrets" -}}
{{- $mounts := deepCopy (.values.secretMounts | default dict) -}}
{{- range $folder, $secret := dict "etcd-tls" .values.etcd.tls.existingSecret "etcd-user" .values.etcd.user.existingSecret "tls" .values.tls.existingSecret -}}
{{- if $secret -}}{{- $_ := set $mounts $folder $secret -}}{{- end -}}
{{- end -}}
{{- toYaml $mounts -}}
{{- end -}}

{{/* Where the first listener listens: a guard for all, a stamp for its own pod. */}}
{{- define "epochgate.bind" -}}
{{- .values.bind | default (ternary "0.0.0.0" "127.0.0.1" (eq .role "guard")) -}}
{{- end -}}

{{/* The port of the first listener: the one that the protocol is known by. */}}
{{- define "epochgate.port" -}}
{{- .values.port | default (get (dict "http" 8080 "tcp" 8080 "postgres" 5432 "redis" 6379) .values.protocol) -}}
{{- end -}}

{{/* Ports that are reached from outside of the pod: a list of name and port. */}}
{{- define "epochgate.ports" -}}
{{- $ports := list -}}
{{- range $at, $listener := include "epochgate.listeners" . | fromYamlArray -}}
{{- $port := regexFind "[0-9]+$" $listener.listen -}}
{{- if and (not (hasPrefix "unix:" $listener.listen)) (not (regexMatch "^(127[.]|\\[::1\\])" $listener.listen)) -}}
{{- $name := $listener.name | lower | replace "." "-" | replace "_" "-" | trunc 15 | trimSuffix "-" -}}
{{- if and (eq $at 0) $.values.upstream.url -}}{{- $name = $.values.protocol -}}{{- end -}}
{{- /* In a pod of somebody else it is not to be one of its own: a Service would take ours for it. */ -}}
{{- if ne $.path "" -}}{{- $name = printf "eg-%s" $name | trunc 15 | trimSuffix "-" -}}{{- end -}}
{{- $ports = append $ports (dict "name" $name "port" (int $port)) -}}
{{- end -}}
{{- end -}}
{{- toYaml $ports -}}
{{- end -}}

{{/* How long a pod may take to stop, in whole seconds: what the process may take, and something. */}}
{{- define "epochgate.stopSeconds" -}}
{{- $config := .values.config | default dict -}}
{{- $grace := include "epochgate.seconds" (dig "shutdown" "grace" "30s" $config) -}}
{{- $stepDown := include "epochgate.seconds" (dig "step_down" "timeout" "5s" $config) -}}
{{- add $grace (ternary $stepDown "0" (eq .role "stamp")) 10 -}}
{{- end -}}
