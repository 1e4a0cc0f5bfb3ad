{{/*
Names and labels. Their forms are those of the tempo-distributed chart: selectors and names cannot change in place.
*/}}

{{/* Value of app.kubernetes.io/name. */}}
{{- define "tempo.name" -}}
{{- default "tempo" .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Prefix of all names: the release where it has "tempo" in it, else <release>-tempo. */}}
{{- define "tempo.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := default "tempo" .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tempo.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Name of an object of a component: dict "ctx" . "component" "distributor". Without a component, of the whole. */}}
{{- define "tempo.resourceName" -}}
{{- $full := include "tempo.fullname" .ctx }}
{{- if .component }}
{{- printf "%s-%s" $full .component | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $full }}
{{- end }}
{{- end }}

{{/* Labels that select the pods of a component: dict "ctx" . "component" "distributor". Immutable in workloads. */}}
{{- define "tempo.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tempo.name" .ctx }}
app.kubernetes.io/instance: {{ .ctx.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{/* "true" for the components that gossip. */}}
{{- define "tempo.isMember" -}}
{{- has . (list "distributor" "ingester" "querier" "compactor" "metrics-generator") }}
{{- end }}

{{- define "tempo.gossipRingSelectorLabels" -}}
app.kubernetes.io/name: {{ include "tempo.name" .ctx }}
app.kubernetes.io/instance: {{ .ctx.Release.Name }}
app.kubernetes.io/part-of: memberlist
{{- end }}

{{/* Labels as a map: dict "ctx" . "component" "distributor" "more" (list of maps that win). */}}
{{- define "tempo.labelMap" -}}
{{- $labels := include "tempo.selectorLabels" . | fromYaml }}
{{- $_ := set $labels "helm.sh/chart" (include "tempo.chart" .ctx) }}
{{- with .ctx.Chart.AppVersion }}{{- $_ := set $labels "app.kubernetes.io/version" (toString .) }}{{- end }}
{{- $_ := set $labels "app.kubernetes.io/managed-by" .ctx.Release.Service }}
{{- if eq (include "tempo.isMember" (default "" .component)) "true" }}
{{- $_ := set $labels "app.kubernetes.io/part-of" "memberlist" }}
{{- end }}
{{- $global := default dict .ctx.Values.global }}
{{- $labels = mergeOverwrite $labels (deepCopy (default dict $global.commonLabels)) (deepCopy (default dict $global.labels)) }}
{{- range .more }}
{{- $labels = mergeOverwrite $labels (deepCopy (default dict .)) }}
{{- end }}
{{- toYaml $labels }}
{{- end }}

{{/* Labels of an object: dict "ctx" . "component" "distributor". */}}
{{- define "tempo.labels" -}}
{{- include "tempo.labelMap" (dict "ctx" .ctx "component" .component) }}
{{- end }}

{{/* Labels of a component's pods. The selector's own labels always win. */}}
{{- define "tempo.podLabels" -}}
{{- $values := include "tempo.componentValues" . | fromYaml }}
{{- $global := default dict .ctx.Values.global }}
{{- $selector := include "tempo.selectorLabels" . | fromYaml }}
{{- include "tempo.labelMap" (dict "ctx" .ctx "component" .component "more" (list $global.podLabels .ctx.Values.tempo.podLabels $values.podLabels .more $selector)) }}
{{- end }}

{{/* Key of a component in the values: query-frontend is queryFrontend. */}}
{{- define "tempo.componentKey" -}}
{{- if eq . "query-frontend" }}queryFrontend{{ else if eq . "metrics-generator" }}metricsGenerator{{ else }}{{ . }}{{ end }}
{{- end }}

{{/* A component's own values. */}}
{{- define "tempo.componentValues" -}}
{{- default dict (get .ctx.Values (include "tempo.componentKey" .component)) | toYaml }}
{{- end }}

{{- define "tempo.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "tempo.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* Name of the gossip cluster: processes of another one are not talked to. */}}
{{- define "tempo.clusterName" -}}
{{- default (printf "%s.%s" .Release.Name .Release.Namespace) .Values.memberlist.cluster_label }}
{{- end }}

{{/* Name of the object with the configuration, and of the one with the limits per tenant. */}}
{{- define "tempo.configName" -}}
{{- tpl (default (printf "%s-config" (include "tempo.fullname" .)) .Values.externalConfigSecretName) . }}
{{- end }}
{{- define "tempo.runtimeName" -}}
{{- tpl (default (printf "%s-runtime" (include "tempo.fullname" .)) .Values.externalRuntimeConfigName) . }}
{{- end }}

{{/* Name of the MinIO that comes with the chart. */}}
{{- define "tempo.minioName" -}}
{{- if .Values.minio.fullnameOverride }}
{{- .Values.minio.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains "minio" .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (default "minio" .Values.minio.nameOverride) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
