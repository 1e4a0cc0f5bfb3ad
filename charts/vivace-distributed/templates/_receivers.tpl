{{/*
The receivers that are enabled, as JSON list of
  name (of the Service's port), target (of the container's port), port (of the Service), listen (of the container), protocol, path (in `receivers`), config.
*/}}
{{- define "tempo.receiverPorts" -}}
{{- $traces := .Values.traces }}
{{- $otlp := default dict $traces.otlp }}
{{- $jaeger := default dict $traces.jaeger }}
{{- $found := list }}
{{- range $known := list
  (dict "name" "distributor-jaeger-thrift-compact" "target" "jaeger-compact" "port" 6831 "protocol" "UDP" "path" (list "jaeger" "protocols" "thrift_compact") "values" $jaeger.thriftCompact)
  (dict "name" "distributor-jaeger-thrift-binary" "target" "jaeger-binary" "port" 6832 "protocol" "UDP" "path" (list "jaeger" "protocols" "thrift_binary") "values" $jaeger.thriftBinary)
  (dict "name" "distributor-jaeger-thrift-http" "target" "jaeger-http" "port" 14268 "protocol" "TCP" "path" (list "jaeger" "protocols" "thrift_http") "values" $jaeger.thriftHttp)
  (dict "name" "grpc-distributor-jaeger" "target" "jaeger-grpc" "port" 14250 "protocol" "TCP" "path" (list "jaeger" "protocols" "grpc") "values" $jaeger.grpc)
  (dict "name" "distributor-zipkin" "target" "zipkin" "port" 9411 "protocol" "TCP" "path" (list "zipkin") "values" $traces.zipkin)
  (dict "name" "distributor-otlp-http" "target" "otlp-http" "port" 4318 "protocol" "TCP" "path" (list "otlp" "protocols" "http") "values" $otlp.http)
  (dict "name" "grpc-distributor-otlp" "target" "grpc-otlp" "port" (default 4317 (default dict $otlp.grpc).port | int) "protocol" "TCP" "path" (list "otlp" "protocols" "grpc") "values" $otlp.grpc)
  (dict "name" "distributor-opencensus" "target" "opencensus" "port" 55678 "protocol" "TCP" "path" (list "opencensus") "values" $traces.opencensus)
}}
{{- $values := default dict $known.values }}
{{- if $values.enabled }}
{{- $config := mergeOverwrite (dict "endpoint" (printf "0.0.0.0:%d" (int $known.port))) (deepCopy (default dict $values.receiverConfig)) }}
{{- $listen := regexFind "[0-9]+$" (tpl (toString $config.endpoint) $) | default (toString $known.port) | int }}
{{- $found = append $found (dict "name" $known.name "target" $known.target "port" $known.port "listen" $listen "protocol" $known.protocol "path" $known.path "config" $config) }}
{{- end }}
{{- end }}
{{- toJson $found }}
{{- end }}

{{/* The block `distributor.receivers`; nothing where none is enabled, which is OTLP on every interface. */}}
{{- define "tempo.receivers" -}}
{{- $receivers := dict }}
{{- range include "tempo.receiverPorts" . | fromJsonArray }}
{{- $block := .config }}
{{- range reverse .path }}
{{- $block = dict . $block }}
{{- end }}
{{- $receivers = mergeOverwrite $receivers $block }}
{{- end }}
{{- with .Values.traces.kafka }}
{{- $_ := set $receivers "kafka" . }}
{{- end }}
{{- if $receivers }}{{ toYaml $receivers }}{{ end }}
{{- end }}

{{/* Where OTLP over HTTP is listened for, or gRPC where HTTP is not: JSON with http (port or 0) and grpc (port or 0). */}}
{{- define "tempo.otlpPorts" -}}
{{- $http := 0 }}
{{- $grpc := 0 }}
{{- $ports := include "tempo.receiverPorts" . | fromJsonArray }}
{{- range $ports }}
{{- if eq .target "otlp-http" }}{{- $http = .listen }}{{- end }}
{{- if eq .target "grpc-otlp" }}{{- $grpc = .listen }}{{- end }}
{{- end }}
{{- if and (not $ports) (not .Values.traces.kafka) }}
{{- $http = 4318 }}
{{- $grpc = 4317 }}
{{- end }}
{{- toJson (dict "http" $http "grpc" $grpc) }}
{{- end }}
