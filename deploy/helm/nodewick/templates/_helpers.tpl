{{- define "nodewick.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "nodewick.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "nodewick.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "nodewick.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* The cluster role's name; two releases in one cluster must not share it. */}}
{{- define "nodewick.clusterRoleName" -}}
{{- if eq .Release.Namespace "nodewick" }}
{{- include "nodewick.fullname" . }}
{{- else }}
{{- printf "%s-%s" .Release.Namespace (include "nodewick.fullname" .) }}
{{- end }}
{{- end }}

{{- define "nodewick.selectorLabels" -}}
app.kubernetes.io/name: {{ include "nodewick.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "nodewick.podLabels" -}}
{{ include "nodewick.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: agent
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "nodewick.labels" -}}
{{ include "nodewick.podLabels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "nodewick.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- /* The port of `[admin] listen`. The kubelet probes it, so the agent must listen on the pod's address. */}}
{{- define "nodewick.port" -}}
{{- $listen := dig "admin" "listen" "0.0.0.0:9464" .Values.config | trim }}
{{- if or (eq $listen "") (eq $listen "off") (hasPrefix "127." $listen) (hasPrefix "localhost:" $listen) (hasPrefix "[::1]" $listen) }}
{{- fail (printf "config.admin.listen is %q: the kubelet's probes need a port on the pod's address, such as \"0.0.0.0:9464\"" $listen) }}
{{- end }}
{{- $port := regexFind "[0-9]+$" $listen }}
{{- if not $port }}
{{- fail (printf "config.admin.listen is %q: write an address with a port, such as \"0.0.0.0:9464\"" $listen) }}
{{- end }}
{{- $port }}
{{- end }}

{{- /* Who tells of the node's pods, `[kube] mode`: the rights follow it. */}}
{{- define "nodewick.mode" -}}
{{- dig "kube" "mode" "auto" .Values.config }}
{{- end }}

{{- /* "true" where host figures are on: `host.enabled`, or `[host] enabled`. The mounts follow it, and so does the config. */}}
{{- define "nodewick.host" -}}
{{- or .Values.host.enabled (eq (toString (dig "host" "enabled" false .Values.config)) "true") }}
{{- end }}

{{- define "nodewick.config" -}}
{{- $config := deepCopy .Values.config }}
{{- if eq (include "nodewick.host" .) "true" }}
{{- $config = mergeOverwrite $config (dict "host" (dict "enabled" true)) }}
{{- end }}
{{- include "nodewick.toml.table" (dict "path" list "table" $config) | trim }}
{{- end }}

{{- /*
TOML of a map. Helm's own toToml writes every number of a values file as a float (`4.0`), which the agent's loader
refuses for a count: values pass through JSON.
*/}}
{{- define "nodewick.toml.table" -}}
{{- $path := .path }}
{{- range $key, $value := .table }}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value)) }}
{{ include "nodewick.toml.key" $key }} = {{ include "nodewick.toml.value" $value }}
{{- end }}
{{- end }}
{{- range $key, $value := .table }}
{{- if kindIs "map" $value }}
{{- $below := append $path (include "nodewick.toml.key" $key) }}
{{- $own := eq (len $value) 0 }}
{{- range $value }}
{{- if not (kindIs "map" .) }}
{{- $own = true }}
{{- end }}
{{- end }}
{{- /* A table of tables needs no head of its own. */}}
{{- if $own }}

[{{ join "." $below }}]
{{- end }}
{{- include "nodewick.toml.table" (dict "path" $below "table" $value) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "nodewick.toml.key" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . }}{{ . }}{{ else }}{{ toRawJson . }}{{ end }}
{{- end }}

{{- define "nodewick.toml.value" -}}
{{- if kindIs "map" . }}
{{- $pairs := list }}
{{- range $key, $value := . }}
{{- $pairs = append $pairs (printf "%s = %s" (include "nodewick.toml.key" $key) (include "nodewick.toml.value" $value)) }}
{{- end }}
{{- printf "{ %s }" (join ", " $pairs) }}
{{- else if kindIs "slice" . }}
{{- $items := list }}
{{- range . }}
{{- $items = append $items (include "nodewick.toml.value" .) }}
{{- end }}
{{- printf "[%s]" (join ", " $items) }}
{{- else if kindIs "string" . }}
{{- toRawJson . }}
{{- else if kindIs "float64" . }}
{{- if eq (floor .) . }}{{ int64 . }}{{ else }}{{ printf "%v" . }}{{ end }}
{{- else }}
{{- printf "%v" . }}
{{- end }}
{{- end }}
