{{/*
The configuration: the text `config` as a template, `tempo.structuredConfig` over it, the result as a template again.
*/}}

{{- define "tempo.calculatedConfig" -}}
{{- $base := dict }}
{{- if kindIs "string" .Values.config }}
{{- $base = tpl .Values.config . | fromYaml }}
{{- if and (hasKey $base "Error") (eq (len $base) 1) }}
{{- fail (printf "config: is not YAML once its templates are filled in: %s" $base.Error) }}
{{- end }}
{{- end }}
{{- $structured := tpl (toYaml (default dict .Values.tempo.structuredConfig)) . | fromYaml }}
{{- if and (hasKey $structured "Error") (eq (len $structured) 1) }}
{{- fail (printf "tempo.structuredConfig: is not YAML once its templates are filled in: %s" $structured.Error) }}
{{- end }}
{{- $config := mergeOverwrite $base $structured }}
{{- if (default dict .Values.queryFrontend.query).enabled }}
{{- $config = mergeOverwrite (dict "query_frontend" (dict "jaeger" (dict "enabled" true))) $config }}
{{- end }}
{{- /* Charts of old had the tenants' file beside the configuration; here it has a folder of its own. */ -}}
{{- if and (kindIs "map" $config.overrides) (not .Values.useExternalConfig) (eq (default "" $config.overrides.per_tenant_override_config) "/conf/overrides.yaml") }}
{{- $_ := set $config.overrides "per_tenant_override_config" "/runtime-config/overrides.yaml" }}
{{- end }}
{{- tpl ($config | toYaml) . }}
{{- end }}

{{/* Port of the HTTP listener, wherever it was set. */}}
{{- define "tempo.serverHttpListenPort" -}}
{{- $server := default dict (include "tempo.calculatedConfig" . | fromYaml).server }}
{{- default 3200 $server.http_listen_port | int }}
{{- end }}

{{- define "tempo.memberlistBindPort" -}}
{{- $memberlist := default dict (include "tempo.calculatedConfig" . | fromYaml).memberlist }}
{{- default 7946 $memberlist.bind_port | int }}
{{- end }}

{{/*
What of the configuration changes what a component does: dict "ctx" . "component" "distributor".
Its checksum is an annotation of the pods, so that a change rolls only the components that it concerns.
*/}}
{{- define "tempo.concerningConfig" -}}
{{- $config := include "tempo.calculatedConfig" .ctx | fromYaml }}
{{- $ingester := default dict $config.ingester }}
{{- $generator := default dict $config.metrics_generator }}
{{- $own := .component | replace "-" "_" }}
{{- range $section := list "distributor" "ingester" "querier" "query_frontend" "compactor" "metrics_generator" }}
{{- if ne $section $own }}{{- $_ := unset $config $section }}{{- end }}
{{- end }}
{{- if has .component (list "distributor" "querier") }}
{{- $_ := set $config "ingester" (pick $ingester "lifecycler") }}
{{- end }}
{{- if eq .component "distributor" }}
{{- $_ := set $config "metrics_generator" (pick $generator "ring") }}
{{- $_ := unset $config "storage" }}
{{- $_ := unset $config "cache" }}
{{- end }}
{{- if eq .component "query-frontend" }}{{- $_ := unset $config "memberlist" }}{{- end }}
{{- $readers := dict
  "ingestion" (list "distributor" "ingester")
  "read" (list "query-frontend" "querier")
  "compaction" (list "compactor")
  "metrics_generator" (list "distributor" "metrics-generator")
  "forwarders" (list "distributor")
  "cost_attribution" (list "distributor") }}
{{- $overrides := default dict $config.overrides }}
{{- $defaults := default dict $overrides.defaults }}
{{- range $block, $components := $readers }}
{{- if not (has $.component $components) }}{{- $_ := unset $defaults $block }}{{- end }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{/* Volumes and mounts of the configuration and of the limits per tenant. */}}
{{- define "tempo.configVolume" -}}
{{- if eq .Values.configStorageType "Secret" }}
secret:
  secretName: {{ include "tempo.configName" . }}
{{- else }}
configMap:
  name: {{ include "tempo.configName" . }}
{{- end }}
{{- end }}

{{- define "tempo.runtimeVolume" -}}
configMap:
  name: {{ include "tempo.runtimeName" . }}
{{- end }}

{{/*
`overrides` of the values has two meanings: since chart 1.33 the defaults and the path of the tenants' file, before that the tenants.
It is the tenants where `global_overrides` is set, or where every value is a map and no key is one of the newer meaning.
In charts of old the tenants are a text, with a key `overrides` around them.
*/}}
{{- define "tempo.overridesOfValues" -}}
{{- $overrides := default dict .Values.overrides }}
{{- if kindIs "string" $overrides }}
{{- $overrides = tpl $overrides . | fromYaml }}
{{- if and (hasKey $overrides "Error") (eq (len $overrides) 1) }}
{{- fail (printf "overrides: is not YAML once its templates are filled in: %s" $overrides.Error) }}
{{- end }}
{{- if hasKey $overrides "overrides" }}{{- $overrides = default dict $overrides.overrides }}{{- end }}
{{- end }}
{{- toYaml $overrides }}
{{- end }}

{{- define "tempo.overridesAreTenants" -}}
{{- $overrides := include "tempo.overridesOfValues" . | fromYaml }}
{{- $tenants := true }}
{{- if not (or .Values.global_overrides (kindIs "string" .Values.overrides)) }}
{{- range $key, $value := $overrides }}
{{- if has $key (list "defaults" "per_tenant_override_config" "per_tenant_override_period" "user_configurable_overrides" "enable_legacy_overrides") }}
{{- $tenants = false }}
{{- else if not (kindIs "map" $value) }}
{{- $tenants = false }}
{{- end }}
{{- end }}
{{- end }}
{{- if and $overrides $tenants }}true{{ else }}false{{ end }}
{{- end }}

{{/* The block `overrides` of the configuration. */}}
{{- define "tempo.overridesBlock" -}}
{{- $block := dict "per_tenant_override_config" "/runtime-config/overrides.yaml" }}
{{- if .Values.global_overrides }}
{{- $block = mergeOverwrite $block (deepCopy .Values.global_overrides) }}
{{- else if ne (include "tempo.overridesAreTenants" .) "true" }}
{{- $block = mergeOverwrite $block (include "tempo.overridesOfValues" . | fromYaml) }}
{{- end }}
{{- toYaml $block }}
{{- end }}

{{/* The file with the limits per tenant. */}}
{{- define "tempo.runtimeConfig" -}}
{{- $tenants := deepCopy (default dict .Values.per_tenant_overrides) }}
{{- if eq (include "tempo.overridesAreTenants" .) "true" }}
{{- $tenants = mergeOverwrite (include "tempo.overridesOfValues" . | fromYaml) $tenants }}
{{- end }}
{{- if $tenants }}
overrides:
  {{- toYaml $tenants | nindent 2 }}
{{- else }}
overrides: {}
{{- end }}
{{- end }}

{{/*
What the configuration has of a block of the values: those keys alone that the reference chart reads, as others may be keys of
nothing, with which no pod would start. dict "from" .Values.querier.config "keys" (list "max_concurrent_queries" "search.query_timeout").
*/}}
{{- define "tempo.picked" -}}
{{- $picked := dict }}
{{- range $key := .keys }}
{{- $names := splitList "." $key }}
{{- $first := first $names }}
{{- if eq (len $names) 1 }}
{{- if hasKey $.from $first }}{{- $_ := set $picked $first (get $.from $first) }}{{- end }}
{{- else }}
{{- $inner := get $.from $first }}
{{- if and (kindIs "map" $inner) (hasKey (default dict $inner) (last $names)) }}
{{- $_ := set $picked $first (set (default dict (get $picked $first)) (last $names) (get $inner (last $names))) }}
{{- end }}
{{- end }}
{{- end }}
{{- if $picked }}{{ toYaml $picked }}{{ end }}
{{- end }}
