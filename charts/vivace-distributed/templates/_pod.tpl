{{/*
Pod template of one of Vivace's services: dict "ctx" . "component" "distributor", and for a zone "zone" its name,
"zoneValues" its values, "more" further labels, "claim" whether a volume claim gives the data volume.
*/}}

{{/* Name of the volume at /var/tempo. Claims are named after it, so it cannot change. */}}
{{- define "tempo.dataVolume" -}}
{{- if eq . "ingester" }}data{{ else if eq . "metrics-generator" }}wal{{ else }}tempo-{{ . | replace "-" "" }}-store{{ end }}
{{- end }}

{{/* A text that is a template, or a map. */}}
{{- define "tempo.templated" -}}
{{- if kindIs "string" .value }}{{ tpl .value .ctx }}{{ else if .value }}{{ tpl (toYaml .value) .ctx }}{{ end }}
{{- end }}

{{- define "tempo.affinity" -}}
{{- include "tempo.templated" (dict "value" .values.affinity "ctx" .ctx) }}
{{- end }}

{{/* Whether a second pod can be kept from a node: "true" where the anti-affinity is required. */}}
{{- define "tempo.isOnePerNode" -}}
{{- $anti := default dict (default dict (include "tempo.affinity" . | fromYaml)).podAntiAffinity }}
{{- if $anti.requiredDuringSchedulingIgnoredDuringExecution }}true{{ else }}false{{ end }}
{{- end }}

{{/* Seconds that a component's pods have to end. */}}
{{- define "tempo.graceSeconds" -}}
{{- default (has .component (list "ingester" "metrics-generator") | ternary 300 30) .values.terminationGracePeriodSeconds | int }}
{{- end }}

{{/* Flags that make the end of a process fit its grace period. What the configuration itself says wins. */}}
{{- define "tempo.shutdownArgs" -}}
{{- $config := include "tempo.calculatedConfig" .ctx | fromYaml }}
{{- $grace := include "tempo.graceSeconds" . | int }}
{{- $delay := 0 }}
{{- if and .values.shutdownDelay (not (hasKey $config "shutdown_delay")) }}
{{- $delay = regexFind "^[0-9]+" (toString .values.shutdownDelay) | int }}
- -shutdown-delay={{ $delay }}s
{{- end }}
{{- if not (hasKey (default dict $config.server) "graceful_shutdown_timeout") }}
- -server.graceful-shutdown-timeout={{ max 1 (sub $grace (add $delay (gt $grace 60 | ternary 10 5))) }}s
{{- end }}
{{- end }}

{{- define "tempo.annotations" -}}
{{- $annotations := dict }}
{{- if .ctx.Values.useExternalConfig }}
{{- $_ := set $annotations "checksum/config" (toString .ctx.Values.externalConfigVersion) }}
{{- else }}
{{- $_ := set $annotations "checksum/config" (include "tempo.concerningConfig" . | sha256sum) }}
{{- end }}
{{- $global := default dict .ctx.Values.global }}
{{- range list $global.podAnnotations .ctx.Values.tempo.podAnnotations (default dict .zoneValues).podAnnotations .values.podAnnotations .moreAnnotations }}
{{- $annotations = mergeOverwrite $annotations (deepCopy (default dict .)) }}
{{- end }}
{{- tpl (toYaml $annotations) .ctx }}
{{- end }}

{{- define "tempo.containerPorts" -}}
- name: http-metrics
  containerPort: {{ include "tempo.serverHttpListenPort" .ctx }}
  protocol: TCP
- name: grpc
  containerPort: 9095
  protocol: TCP
{{- if eq (include "tempo.isMember" .component) "true" }}
- name: http-memberlist
  containerPort: {{ include "tempo.memberlistBindPort" .ctx }}
  protocol: TCP
- name: gossip
  containerPort: {{ include "tempo.memberlistBindPort" .ctx }}
  protocol: UDP
{{- end }}
{{- if and (eq .component "query-frontend") (default dict .ctx.Values.queryFrontend.query).enabled }}
- name: jaeger-ui
  containerPort: 16686
  protocol: TCP
- name: jaeger-grpc
  containerPort: 16685
  protocol: TCP
{{- end }}
{{- if eq .component "distributor" }}
{{- range include "tempo.receiverPorts" .ctx | fromJsonArray }}
- name: {{ .target }}
  containerPort: {{ int .listen }}
  protocol: {{ .protocol }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tempo.pod" -}}
{{- $values := include "tempo.componentValues" . | fromYaml }}
{{- $ctx := .ctx }}
{{- $global := default dict $ctx.Values.global }}
{{- $part := merge (dict "values" $values) . }}
metadata:
  labels:
    {{- include "tempo.podLabels" . | nindent 4 }}
  annotations:
    {{- include "tempo.annotations" $part | nindent 4 }}
spec:
  serviceAccountName: {{ include "tempo.serviceAccountName" $ctx }}
  automountServiceAccountToken: {{ $ctx.Values.serviceAccount.automountServiceAccountToken }}
  enableServiceLinks: false
  {{- with coalesce $values.priorityClassName $global.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- include "tempo.imagePullSecrets" $part | nindent 2 }}
  securityContext:
    {{- toYaml $ctx.Values.tempo.podSecurityContext | nindent 4 }}
  terminationGracePeriodSeconds: {{ include "tempo.graceSeconds" $part }}
  {{- with $values.hostAliases }}
  hostAliases:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if eq .component "compactor" }}
  {{- with $values.dnsConfigOverides }}
  {{- if .enabled }}
  dnsConfig:
    {{- toYaml .dnsConfig | nindent 4 }}
  {{- end }}
  {{- end }}
  {{- end }}
  {{- with $values.dnsConfig }}
  dnsConfig:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.initContainers }}
  initContainers:
    {{- tpl (toYaml .) $ctx | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .component }}
      image: {{ include "tempo.imageReference" . | quote }}
      imagePullPolicy: {{ default $ctx.Values.tempo.image.pullPolicy (default dict $values.image).pullPolicy }}
      args:
        - -target={{ .component }}
        - -config.file=/conf/tempo.yaml
        {{- with .zone }}
        - -ingester.availability-zone={{ . }}
        {{- end }}
        {{- include "tempo.shutdownArgs" $part | nindent 8 }}
        {{- range concat (default list $values.extraArgs) (default list $global.extraArgs) }}
        - {{ toString . | quote }}
        {{- end }}
      ports:
        {{- include "tempo.containerPorts" . | nindent 8 }}
        {{- with $values.extraPorts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with concat (default list $global.extraEnv) (default list $values.extraEnv) }}
      env:
        {{- tpl (toYaml .) $ctx | nindent 8 }}
      {{- end }}
      {{- with concat (default list $global.extraEnvFrom) (default list $values.extraEnvFrom) }}
      envFrom:
        {{- tpl (toYaml .) $ctx | nindent 8 }}
      {{- end }}
      {{- with $values.lifecycle }}
      lifecycle:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      startupProbe:
        {{- toYaml (default $ctx.Values.tempo.startupProbe $values.startupProbe) | nindent 8 }}
      readinessProbe:
        {{- toYaml (default $ctx.Values.tempo.readinessProbe $values.readinessProbe) | nindent 8 }}
      livenessProbe:
        {{- toYaml (default $ctx.Values.tempo.livenessProbe $values.livenessProbe) | nindent 8 }}
      resources:
        {{- toYaml (default dict $values.resources) | nindent 8 }}
      securityContext:
        {{- toYaml $ctx.Values.tempo.securityContext | nindent 8 }}
      volumeMounts:
        - name: config
          mountPath: /conf
        - name: runtime-config
          mountPath: /runtime-config
        - name: {{ include "tempo.dataVolume" .component }}
          mountPath: /var/tempo
        {{- with $values.extraVolumeMounts }}
        {{- tpl (toYaml .) $ctx | nindent 8 }}
        {{- end }}
    {{- with $values.extraContainers }}
    {{- tpl (toYaml .) $ctx | nindent 4 }}
    {{- end }}
  volumes:
    - name: config
      {{- include "tempo.configVolume" $ctx | nindent 6 }}
    - name: runtime-config
      {{- include "tempo.runtimeVolume" $ctx | nindent 6 }}
    {{- if not .claim }}
    - name: {{ include "tempo.dataVolume" .component }}
      {{- if eq .component "metrics-generator" }}
      emptyDir:
        {{- toYaml (default dict $values.walEmptyDir) | nindent 8 }}
      {{- else if and (eq .component "ingester") (default dict $values.persistence).inMemory }}
      emptyDir:
        medium: Memory
        {{- with $values.persistence.size }}
        sizeLimit: {{ . }}
        {{- end }}
      {{- else }}
      emptyDir: {}
      {{- end }}
    {{- end }}
    {{- with $values.extraVolumes }}
    {{- tpl (toYaml .) $ctx | nindent 4 }}
    {{- end }}
  {{- with default $values.nodeSelector (default dict .zoneValues).nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- $affinity := include "tempo.affinity" $part | fromYaml }}
  {{- with .zoneAffinity }}
  {{- $affinity = mergeOverwrite (default dict $affinity) . }}
  {{- end }}
  {{- with $affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if not .zone }}
  {{- with include "tempo.templated" (dict "value" $values.topologySpreadConstraints "ctx" $ctx) }}
  topologySpreadConstraints:
    {{- . | nindent 4 }}
  {{- end }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
