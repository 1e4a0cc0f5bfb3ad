{{/* The configuration, the text `config` as a template. */}}
{{- define "tempo.calculatedConfig" -}}
{{- if kindIs "string" .Values.config }}
{{- tpl .Values.config . }}
{{- else }}
{{- tpl (toYaml .Values.config) . }}
{{- end }}
{{- end }}

{{- define "tempo.serverHttpListenPort" -}}
{{- default 3200 (default dict (include "tempo.calculatedConfig" . | fromYaml).server).http_listen_port | int }}
{{- end }}

{{/*
`tempo.overrides` of the values has two meanings: since chart 1.19 the defaults and the path of the tenants' file, before that the tenants.
It is the tenants where `tempo.global_overrides` is set, or where every value is a map and no key is one of the newer meaning.
In charts of old the tenants are a text, with a key `overrides` around them.
*/}}
{{- define "tempo.overridesOfValues" -}}
{{- $overrides := default dict .Values.tempo.overrides }}
{{- if kindIs "string" $overrides }}
{{- $overrides = tpl $overrides . | fromYaml }}
{{- if and (hasKey $overrides "Error") (eq (len $overrides) 1) }}
{{- fail (printf "tempo.overrides: is not YAML once its templates are filled in: %s" $overrides.Error) }}
{{- end }}
{{- if hasKey $overrides "overrides" }}{{- $overrides = default dict $overrides.overrides }}{{- end }}
{{- end }}
{{- toYaml $overrides }}
{{- end }}

{{- define "tempo.overridesAreTenants" -}}
{{- $overrides := include "tempo.overridesOfValues" . | fromYaml }}
{{- $tenants := true }}
{{- if not (or .Values.tempo.global_overrides (kindIs "string" .Values.tempo.overrides)) }}
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
{{- $block := dict "per_tenant_override_config" "/conf/overrides.yaml" }}
{{- if .Values.tempo.global_overrides }}
{{- $block = mergeOverwrite $block (deepCopy .Values.tempo.global_overrides) }}
{{- else if ne (include "tempo.overridesAreTenants" .) "true" }}
{{- $block = mergeOverwrite $block (include "tempo.overridesOfValues" . | fromYaml) }}
{{- end }}
{{- toYaml $block }}
{{- end }}

{{/* The file with the limits per tenant. */}}
{{- define "tempo.runtimeConfig" -}}
{{- $tenants := deepCopy (default dict .Values.tempo.per_tenant_overrides) }}
{{- if eq (include "tempo.overridesAreTenants" .) "true" }}
{{- $tenants = mergeOverwrite (include "tempo.overridesOfValues" . | fromYaml) $tenants }}
{{- end }}
{{- dict "overrides" $tenants | toYaml }}
{{- end }}

{{/*
The ports that people talk to, as JSON list of name, port, protocol, listen (port of the container).
Receivers listen where their endpoints say; those that are not configured keep their port in the Service, as in the reference.
*/}}
{{- define "tempo.ports" -}}
{{- $receivers := default dict .Values.tempo.receivers }}
{{- $jaeger := default dict (default dict $receivers.jaeger).protocols }}
{{- $otlp := default dict (default dict $receivers.otlp).protocols }}
{{- $zipkin := default dict $receivers.zipkin }}
{{- $found := list }}
{{- range $known := list
  (dict "name" "tempo-jaeger-thrift-compact" "port" 6831 "protocol" "UDP" "at" $jaeger.thrift_compact)
  (dict "name" "tempo-jaeger-thrift-binary" "port" 6832 "protocol" "UDP" "at" $jaeger.thrift_binary)
  (dict "name" "tempo-jaeger-thrift-http" "port" 14268 "protocol" "TCP" "at" $jaeger.thrift_http)
  (dict "name" "grpc-tempo-jaeger" "port" 14250 "protocol" "TCP" "at" $jaeger.grpc)
  (dict "name" "tempo-zipkin" "port" 9411 "protocol" "TCP" "at" $zipkin)
  (dict "name" "tempo-otlp-legacy" "port" 55680 "listen" 4317 "protocol" "TCP" "at" $otlp.grpc)
  (dict "name" "tempo-otlp-http-legacy" "port" 55681 "listen" 4318 "protocol" "TCP" "at" $otlp.http)
  (dict "name" "grpc-tempo-otlp" "port" 4317 "protocol" "TCP" "at" $otlp.grpc)
  (dict "name" "tempo-otlp-http" "port" 4318 "protocol" "TCP" "at" $otlp.http)
}}
{{- $listen := default $known.port $known.listen }}
{{- with regexFind "[0-9]+$" (default "" (default dict $known.at).endpoint) }}{{- $listen = int . }}{{- end }}
{{- $port := ternary $known.port $listen (hasKey $known "listen") }}
{{- $found = append $found (dict "name" $known.name "port" $port "protocol" $known.protocol "listen" $listen) }}
{{- end }}
{{- toJson $found }}
{{- end }}
