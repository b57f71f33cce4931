{{/*
What no schema can say: settings that contradict each other, or that stand in the wrong place. Each message begins with the
key, and says what to do.
*/}}
{{- define "epochgate.judge" -}}
{{- include "epochgate.judgeNeeds" . -}}
{{- include "epochgate.judgeConfig" . -}}
{{- include "epochgate.judgeSecrets" . -}}
{{- include "epochgate.judgeExtras" . -}}
{{- if eq .role "guard" -}}{{- include "epochgate.judgeDoors" . -}}{{- end -}}
{{- include "epochgate.judgePorts" . -}}
{{- end -}}

{{/* Without these there is nothing to run. */}}
{{- define "epochgate.judgeNeeds" -}}
{{- $v := .values -}}
{{- if not $v.etcd.endpoints -}}
{{- include "epochgate.refuse" (list . "etcd.endpoints" "name the members of the etcd where epochs live, such as {http://etcd:2379}") -}}
{{- end -}}
{{- if not (or $v.upstream.url $v.listeners) -}}
{{- include "epochgate.refuse" (list . "upstream.url" (ternary "name the target, such as http://orders-db:9000" "name the guard, such as http://orders-guard:8080" (eq .role "guard"))) -}}
{{- end -}}
{{- $scheme := regexFind "^[a-z]+" ($v.upstream.url | default "") -}}
{{- $schemes := get (dict "http" (list "http" "https") "tcp" (list "tcp") "postgres" (list "postgres") "redis" (list "redis" "rediss")) $v.protocol -}}
{{- if and $scheme (ne $scheme "unix") (not (has $scheme $schemes)) -}}
{{- include "epochgate.refuse" (list . "upstream.url" (printf "is %s, and protocol is %s: write %s://, or change protocol" $v.upstream.url $v.protocol (join ":// or " $schemes))) -}}
{{- end -}}
{{- if and $v.resource (not $v.upstream.url) -}}
{{- include "epochgate.refuse" (list . "resource" "belongs to the listener of upstream.url, which is empty; a listener under listeners has its own") -}}
{{- end -}}
{{- if not (or $v.resource (dig "resources" dict ($v.config | default dict))) -}}
{{- include "epochgate.refuse" (list . "resource" "name what is fenced, such as orders; or list several under config.resources") -}}
{{- end -}}
{{- if and $v.upstream.url (not $v.resource) (not (dig "rules" list ($v.listener | default dict))) -}}
{{- include "epochgate.refuse" (list . "resource" "name it, or write listener.rules that do: without either every write is refused") -}}
{{- end -}}
{{- end -}}

{{/* Keys of epochgate.yaml that the chart writes. */}}
{{- define "epochgate.judgeConfig" -}}
{{- $one := . -}}
{{- $config := .values.config | default dict -}}
{{- $elsewhere := dict "id" "it is the pod's name, so that no two have the same" "state_dir" "it is where the volume is" "listeners" "write them under listeners, as a mapping from name to listener" -}}
{{- range $key, $why := $elsewhere -}}
{{- if hasKey $config $key -}}{{- include "epochgate.refuse" (list $one (printf "config.%s" $key) $why) -}}{{- end -}}
{{- end -}}
{{- $coordinator := $config.coordinator | default dict -}}
{{- if hasKey $coordinator "etcd" -}}{{- include "epochgate.refuse" (list . "config.coordinator.etcd" "write it under etcd") -}}{{- end -}}
{{- if hasKey $coordinator "embedded" -}}{{- include "epochgate.refuse" (list . "config.coordinator.embedded" "is for the processes of one host; in a cluster epochs live in etcd") -}}{{- end -}}
{{- if and (hasKey $coordinator "prefix") .values.etcd.prefix -}}{{- include "epochgate.refuse" (list . "config.coordinator.prefix" "stands in etcd.prefix too") -}}{{- end -}}
{{- if hasKey ($config.admin | default dict) "listen" -}}{{- include "epochgate.refuse" (list . "config.admin.listen" "write admin.port: the probes and the scraping need to know it") -}}{{- end -}}
{{- end -}}

{{/* What goes over the configuration goes over what is checked here too. */}}
{{- define "epochgate.judgeExtras" -}}
{{- $one := . -}}
{{- range $name, $listener := .values.listeners -}}
{{- if and $listener.role (ne $listener.role $one.role) -}}
{{- include "epochgate.refuse" (list $one (printf "listeners.%s.role" $name) (printf "is %s, and this is a %s: the two belong into pods of their own" $listener.role $one.role)) -}}
{{- end -}}
{{- end -}}
{{- if regexMatch "^(127[.]|\\[?::1)" .values.admin.bind -}}
{{- include "epochgate.refuse" (list . "admin.bind" "is this pod's own: neither the probes nor the scraping would reach it") -}}
{{- end -}}
{{- range $name, $mount := .values.extraVolumeMounts -}}
{{- if regexMatch "^/(var/lib/epochgate|etc/epochgate)(/|$)" ($mount.mountPath | default "") -}}
{{- include "epochgate.refuse" (list $one (printf "extraVolumeMounts.%s.mountPath" $name) "is a folder of the chart's own") -}}
{{- end -}}
{{- end -}}
{{- range $name, $_ := .values.extraEnv -}}
{{- if and (hasPrefix "EPOCHGATE_" $name) (not (has $name (list "EPOCHGATE_AUDIT" "EPOCHGATE_LOG_FORMAT" "EPOCHGATE_LOG_LEVEL" "EPOCHGATE_WORKERS"))) -}}
{{- include "epochgate.refuse" (list $one (printf "extraEnv.%s" $name) "would go over what the chart says; write it where the values have it, or under config") -}}
{{- end -}}
{{- end -}}
{{- range .values.extraArgs -}}
{{- if regexMatch "^(-c|--(config|id|state-dir|etcd|embedded|prefix|lease-ttl|admin)(=|$))" . -}}
{{- include "epochgate.refuse" (list $one "extraArgs" (printf "%s would go over what the chart says; write it where the values have it, or under config" .)) -}}
{{- end -}}
{{- end -}}
{{- range $name, $_ := .values.extraVolumeMounts -}}
{{- if not (hasKey ($one.values.extraVolumes | default dict) $name) -}}
{{- if eq $one.path "" -}}
{{- include "epochgate.refuse" (list $one (printf "extraVolumeMounts.%s" $name) "there is no such volume under extraVolumes") -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "epochgate.judgeSecrets" -}}
{{- $one := . -}}
{{- $v := .values -}}
{{- range $folder := list "config" "state" "etcd-tls" "etcd-user" "tls" -}}
{{- if hasKey ($v.secretMounts | default dict) $folder -}}
{{- include "epochgate.refuse" (list $one (printf "secretMounts.%s" $folder) "the chart uses this folder itself; take another name") -}}
{{- end -}}
{{- end -}}
{{- range $v.etcd.endpoints -}}
{{- if and (hasPrefix "https://" .) (not $v.etcd.tls.existingSecret) -}}
{{- include "epochgate.refuse" (list $one "etcd.tls.existingSecret" (printf "%s needs it: the Secret with the authority of etcd's certificates; the system's are never trusted" .)) -}}
{{- end -}}
{{- if and (hasPrefix "http://" .) $v.etcd.tls.existingSecret -}}
{{- include "epochgate.refuse" (list $one "etcd.endpoints" (printf "%s is not encrypted, and etcd.tls.existingSecret is set; write https://" .)) -}}
{{- end -}}
{{- end -}}
{{- if and $v.etcd.user.name (not $v.etcd.user.existingSecret) -}}
{{- include "epochgate.refuse" (list . "etcd.user.existingSecret" "name the Secret with the password of etcd.user.name") -}}
{{- end -}}
{{- if and $v.etcd.user.existingSecret (not $v.etcd.user.name) -}}
{{- include "epochgate.refuse" (list . "etcd.user.name" "name the user whose password is in etcd.user.existingSecret") -}}
{{- end -}}
{{- if and $v.tls.existingSecret (hasKey ($v.listener | default dict) "tls") -}}
{{- include "epochgate.refuse" (list . "listener.tls" "stands in tls too; keep one of them") -}}
{{- end -}}
{{- if and $v.tls.clientCa (not $v.tls.existingSecret) -}}
{{- include "epochgate.refuse" (list . "tls.clientCa" "needs tls.existingSecret: without a certificate of its own the listener speaks no TLS, and asks nobody for one") -}}
{{- end -}}
{{- if and $v.tls.existingSecret (not $v.upstream.url) -}}
{{- include "epochgate.refuse" (list . "tls.existingSecret" "belongs to the listener of upstream.url, which is empty; use secretMounts and the listener's own tls") -}}
{{- end -}}
{{- end -}}

{{/* Whether a guard with this state can be what its settings ask for. */}}
{{- define "epochgate.judgeDoors" -}}
{{- $one := . -}}
{{- $named := merge (dict "listener" (.values.listener | default dict)) dict -}}
{{- range $name, $listener := .values.listeners -}}{{- $_ := set $named (printf "listeners.%s" $name) $listener -}}{{- end -}}
{{- range $key, $listener := $named -}}
{{- if and (eq ($listener.on_coordinator_loss | default "") "keep") (not $one.values.persistence.enabled) -}}
{{- include "epochgate.refuse" (list $one (printf "%s.on_coordinator_loss" $key) "keep is for a sole guard: several close without etcd, since the others may go on. Set persistence.enabled for a sole one") -}}
{{- end -}}
{{- if and $listener.doors (ne $listener.doors (include "epochgate.doors" $one)) -}}
{{- include "epochgate.refuse" (list $one (printf "%s.doors" $key) (printf "is %s: persistence.enabled decides it, since a sole guard that lost its folder stays shut until somebody says that the old one is dead" (include "epochgate.doors" $one))) -}}
{{- end -}}
{{- end -}}
{{- if and .values.persistence.existingClaim (not .values.persistence.enabled) -}}
{{- include "epochgate.refuse" (list . "persistence.existingClaim" "is set, and persistence.enabled is not") -}}
{{- end -}}
{{- end -}}

{{- define "epochgate.judgePorts" -}}
{{- $one := . -}}
{{- $names := dict "admin" "admin.port" -}}
{{- $_ := include "epochgate.portKeys" . -}}
{{- range $port := include "epochgate.ports" . | fromYamlArray -}}
{{- with get $names $port.name -}}{{- include "epochgate.refuse" (list $one "listeners" (printf "two would give the port %s its name, which is made of the first 15 letters of a listener's" $port.name)) -}}{{- end -}}
{{- $_ := set $names $port.name "x" -}}
{{- end -}}
{{- end -}}

{{/* Which key of the values each port is from, by its number. No two are the same. */}}
{{- define "epochgate.portKeys" -}}
{{- $one := . -}}
{{- $ports := dict (toString .values.admin.port) "admin.port" -}}
{{- range $listener := include "epochgate.listeners" . | fromYamlArray -}}
{{- if not (hasPrefix "unix:" $listener.listen) -}}
{{- $port := regexFind "[0-9]+$" $listener.listen -}}
{{- $key := ternary "port" (printf "listeners.%s.listen" $listener.name) (not (hasKey ($one.values.listeners | default dict) $listener.name)) -}}
{{- with get $ports $port -}}{{- include "epochgate.refuse" (list $one $key (printf "%s is taken by %s" $port .)) -}}{{- end -}}
{{- $_ := set $ports $port $key -}}
{{- end -}}
{{- end -}}
{{- toYaml $ports -}}
{{- end -}}
