{{/* What workloads and their companions have in common. All take dict "ctx" . "component" "distributor". */}}

{{/* How a Deployment rolls. A pod more where nodes may hold two of them, so that nothing is refused meanwhile. */}}
{{- define "tempo.strategy" -}}
{{- if .values.strategy }}
{{- toYaml .values.strategy }}
{{- else if eq (include "tempo.isOnePerNode" .) "true" }}
rollingUpdate:
  maxSurge: 0
  maxUnavailable: 1
{{- else }}
rollingUpdate:
  maxSurge: 1
  maxUnavailable: 0
{{- end }}
{{- end }}

{{/* "true" where an autoscaler owns the number of replicas. */}}
{{- define "tempo.isScaled" -}}
{{- $scaling := default dict .values.autoscaling }}
{{- if eq .component "compactor" }}
{{- if and $scaling.enabled (or (default dict $scaling.hpa).enabled (default dict $scaling.keda).enabled) }}true{{ else }}false{{ end }}
{{- else }}
{{- if $scaling.enabled }}true{{ else }}false{{ end }}
{{- end }}
{{- end }}

{{- define "tempo.deployment" -}}
{{- $values := include "tempo.componentValues" . | fromYaml }}
{{- $part := merge (dict "values" $values) . }}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "tempo.resourceName" . }}
  namespace: {{ .ctx.Release.Namespace }}
  labels:
    {{- include "tempo.labels" . | nindent 4 }}
  {{- with $values.annotations }}
  annotations:
    {{- tpl (toYaml .) $.ctx | nindent 4 }}
  {{- end }}
spec:
  {{- if ne (include "tempo.isScaled" $part) "true" }}
  replicas: {{ $values.replicas }}
  {{- end }}
  minReadySeconds: {{ $values.minReadySeconds }}
  revisionHistoryLimit: {{ .ctx.Values.tempo.revisionHistoryLimit }}
  selector:
    matchLabels:
      {{- include "tempo.selectorLabels" . | nindent 6 }}
  strategy:
    {{- include "tempo.strategy" $part | nindent 4 }}
  template:
    {{- include "tempo.pod" . | nindent 4 }}
{{- end }}

{{- define "tempo.disruptionBudget" -}}
{{- $values := include "tempo.componentValues" . | fromYaml }}
{{- $part := merge (dict "values" $values) . }}
{{- $scaling := default dict $values.autoscaling }}
{{- $replicas := eq (include "tempo.isScaled" $part) "true" | ternary (coalesce $scaling.minReplicas (default dict $scaling.hpa).minReplicas (default dict $scaling.keda).minReplicas 1) $values.replicas | int }}
{{- if and (gt $replicas 1) (default dict $values.podDisruptionBudget).enabled }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "tempo.resourceName" . }}
  namespace: {{ .ctx.Release.Namespace }}
  labels:
    {{- include "tempo.labels" . | nindent 4 }}
spec:
  selector:
    matchLabels:
      {{- include "tempo.selectorLabels" . | nindent 6 }}
  maxUnavailable: {{ default 1 $values.maxUnavailable }}
{{- end }}
{{- end }}

{{- define "tempo.autoscaler" -}}
{{- $values := include "tempo.componentValues" . | fromYaml }}
{{- $scaling := default (default dict $values.autoscaling) .scaling }}
{{- $kind := default "Deployment" .kind }}
{{- if $scaling.enabled }}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ include "tempo.resourceName" . }}
  namespace: {{ .ctx.Release.Namespace }}
  labels:
    {{- include "tempo.labels" . | nindent 4 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: {{ $kind }}
    name: {{ include "tempo.resourceName" . }}
  minReplicas: {{ $scaling.minReplicas }}
  maxReplicas: {{ $scaling.maxReplicas }}
  {{- with $scaling.behavior }}
  behavior:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  metrics:
    {{- with $scaling.targetCPUUtilizationPercentage }}
    - type: Resource
      resource:
        name: cpu
        target:
          type: Utilization
          averageUtilization: {{ . }}
    {{- end }}
    {{- with $scaling.targetMemoryUtilizationPercentage }}
    - type: Resource
      resource:
        name: memory
        target:
          type: Utilization
          averageUtilization: {{ . }}
    {{- end }}
{{- end }}
{{- end }}

{{/* A Service: also "name" (suffix), "ports" (YAML), "service" (its values), "headless", "publishNotReady", "more" (labels). */}}
{{- define "tempo.service" -}}
{{- $service := default dict .service }}
{{- $common := default dict .ctx.Values.tempo.service }}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "tempo.resourceName" (dict "ctx" .ctx "component" (default .component .name)) }}
  namespace: {{ .ctx.Release.Namespace }}
  labels:
    {{- include "tempo.labelMap" (dict "ctx" .ctx "component" .component "more" (list $service.labels .more)) | nindent 4 }}
  {{- with $service.annotations }}
  annotations:
    {{- tpl (toYaml .) $.ctx | nindent 4 }}
  {{- end }}
spec:
  type: {{ default "ClusterIP" $service.type }}
  {{- if .headless }}
  clusterIP: None
  {{- else if $service.clusterIP }}
  clusterIP: {{ $service.clusterIP }}
  {{- end }}
  {{- if .publishNotReady }}
  publishNotReadyAddresses: true
  {{- end }}
  {{- if and $common.ipFamilies (not $service.ipFamilies) }}
  ipFamilies:
    {{- toYaml $common.ipFamilies | nindent 4 }}
  {{- else if $service.ipFamilies }}
  ipFamilies:
    {{- toYaml $service.ipFamilies | nindent 4 }}
  {{- end }}
  {{- with coalesce $service.ipFamilyPolicy $common.ipFamilyPolicy }}
  ipFamilyPolicy: {{ . }}
  {{- end }}
  {{- with $service.internalTrafficPolicy }}
  internalTrafficPolicy: {{ . }}
  {{- end }}
  {{- if has $service.type (list "LoadBalancer" "NodePort") }}
  {{- with $service.externalTrafficPolicy }}
  externalTrafficPolicy: {{ . }}
  {{- end }}
  {{- end }}
  {{- if eq (default "" $service.type) "LoadBalancer" }}
  {{- with $service.loadBalancerIP }}
  loadBalancerIP: {{ . }}
  {{- end }}
  {{- with $service.loadBalancerSourceRanges }}
  loadBalancerSourceRanges:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  ports:
    {{- .ports | nindent 4 }}
  selector:
    {{- default (include "tempo.selectorLabels" .) .selector | nindent 4 }}
{{- end }}

{{/* HTTP ports of a Service that people and data sources talk to: the configured one, 3200, and 3100 of older charts. */}}
{{- define "tempo.httpServicePorts" -}}
{{- $first := default (include "tempo.serverHttpListenPort" .ctx | int) .port | int }}
{{- range $index, $port := list $first 3200 3100 | uniq }}
- name: {{ $index | eq 0 | ternary "http-metrics" (printf "http-%d" $port) }}
  port: {{ $port }}
  protocol: TCP
  targetPort: http-metrics
{{- end }}
{{- end }}

{{/* One port: dict "name" "port" "target" "protocol" "appProtocol". */}}
{{- define "tempo.servicePort" -}}
- name: {{ .name }}
  port: {{ int .port }}
  protocol: {{ default "TCP" .protocol }}
  targetPort: {{ default .name .target }}
  {{- with .appProtocol }}
  appProtocol: {{ . }}
  {{- end }}
{{- end }}

{{/* http-metrics and grpc between the services. */}}
{{- define "tempo.internalPorts" -}}
{{- $values := include "tempo.componentValues" . | fromYaml }}
{{- include "tempo.servicePort" (dict "name" "http-metrics" "port" (include "tempo.serverHttpListenPort" .ctx)) }}
{{ include "tempo.servicePort" (dict "name" "grpc" "port" 9095 "appProtocol" (default dict $values.appProtocol).grpc) }}
{{- end }}
