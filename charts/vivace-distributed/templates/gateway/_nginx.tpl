{{/* nginx.conf of the gateway. */}}
{{- define "tempo.nginxConfig" -}}
{{- $values := .Values.gateway }}
{{- $http := include "tempo.serverHttpListenPort" . }}
{{- $domain := printf "%s.svc.%s" .Release.Namespace (default "cluster.local" (default dict .Values.global).clusterDomain) }}
{{- $full := include "tempo.fullname" . }}
{{- $ports := dict }}
{{- range include "tempo.receiverPorts" . | fromJsonArray }}{{- $_ := set $ports .target (int .port) }}{{- end }}
{{- $distributor := printf "%s-distributor.%s" $full $domain }}
{{- $frontend := printf "%s-query-frontend.%s:%s" $full $domain $http }}
{{- $ingester := printf "%s-ingester.%s:%s" $full $domain $http }}
{{- $compactor := printf "%s-compactor.%s:%s" $full $domain $http }}
{{- $auth := "" }}
{{- if $values.basicAuth.enabled }}
{{- $auth = "auth_basic \"Tempo\";\nauth_basic_user_file /etc/nginx/secrets/.htpasswd;" }}
{{- end -}}
worker_processes auto;
error_log /dev/stderr;
pid /tmp/nginx.pid;

events {
  worker_connections 4096;
}

http {
  client_body_temp_path /tmp/client_temp;
  proxy_temp_path /tmp/proxy_temp;
  fastcgi_temp_path /tmp/fastcgi_temp;
  uwsgi_temp_path /tmp/uwsgi_temp;
  scgi_temp_path /tmp/scgi_temp;

  default_type application/octet-stream;
  log_format {{ tpl $values.nginxConfig.logFormat . | nindent 4 | trim }}
  {{- if $values.verboseLogging }}
  access_log /dev/stderr main;
  {{- else }}
  # Only what went wrong is logged.
  map $status $is_failure {
    ~^[23] 0;
    default 1;
  }
  access_log /dev/stderr main if=$is_failure;
  {{- end }}
  sendfile on;
  tcp_nopush on;
  # The distributor has a limit of its own.
  client_max_body_size 0;
  proxy_http_version 1.1;
  proxy_read_timeout 300;
  resolver {{ default (printf "%s.%s.svc.%s" (default "kube-dns" .Values.global.dnsService) (default "kube-system" .Values.global.dnsNamespace) (default "cluster.local" .Values.global.clusterDomain)) $values.nginxConfig.resolver }};
  {{- with $values.nginxConfig.httpSnippet }}
  {{- tpl . $ | nindent 2 }}
  {{- end }}

  server {
    listen 8080;
    {{- if .Values.streamOverHTTPEnabled }}
    http2 on;
    {{- end }}
    {{- with $auth }}
    {{- . | nindent 4 }}
    {{- end }}

    location = / {
      return 200 'OK';
      auth_basic off;
    }
    {{- with get $ports "jaeger-http" }}
    location = /jaeger/api/traces {
      proxy_pass http://{{ $distributor }}:{{ . }}/api/traces;
    }
    {{- end }}
    {{- with get $ports "zipkin" }}
    location = /zipkin/spans {
      proxy_pass http://{{ $distributor }}:{{ . }}/spans;
    }
    {{- end }}
    {{- with get $ports "otlp-http" }}
    location = /v1/traces {
      proxy_pass http://{{ $distributor }}:{{ . }}/v1/traces;
    }
    location = /otlp/v1/traces {
      proxy_pass http://{{ $distributor }}:{{ . }}/v1/traces;
    }
    {{- end }}
    location ^~ /api {
      proxy_pass http://{{ $frontend }};
    }
    location = /flush {
      proxy_pass http://{{ $ingester }};
    }
    location = /shutdown {
      proxy_pass http://{{ $ingester }};
    }
    location = /distributor/ring {
      proxy_pass http://{{ $distributor }}:{{ $http }};
    }
    location = /ingester/ring {
      proxy_pass http://{{ $distributor }}:{{ $http }};
    }
    location = /compactor/ring {
      proxy_pass http://{{ $compactor }};
    }
    {{- if .Values.streamOverHTTPEnabled }}
    location /tempopb.StreamingQuerier/ {
      grpc_pass grpc://{{ $frontend }};
      grpc_read_timeout 300;
    }
    {{- end }}
    {{- with $values.nginxConfig.serverSnippet }}
    {{- tpl . $ | nindent 4 }}
    {{- end }}
  }
  {{- with get $ports "grpc-otlp" }}

  server {
    listen 4317;
    http2 on;
    {{- with $auth }}
    {{- . | nindent 4 }}
    {{- end }}

    location = /opentelemetry.proto.collector.trace.v1.TraceService/Export {
      grpc_pass grpc://{{ $distributor }}:{{ . }};
    }
    location ~ /opentelemetry {
      grpc_pass grpc://{{ $distributor }}:{{ . }};
    }
  }
  {{- end }}
}
{{- end }}
