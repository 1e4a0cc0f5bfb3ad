{{/*
Names, labels and images. Their forms are those of the tempo chart: selectors and names cannot change in place.
*/}}

{{- define "tempo.name" -}}
{{- default "tempo" .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Name of all objects: the release where it has "tempo" in it, else <release>-tempo. */}}
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

{{- define "tempo.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tempo.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tempo.labels" -}}
{{- $labels := include "tempo.selectorLabels" . | fromYaml }}
{{- $_ := set $labels "helm.sh/chart" (include "tempo.chart" .) }}
{{- $_ := set $labels "app.kubernetes.io/version" .Chart.AppVersion }}
{{- $_ := set $labels "app.kubernetes.io/managed-by" .Release.Service }}
{{- mergeOverwrite $labels (deepCopy (default dict (default dict .Values.global).commonLabels)) (deepCopy (default dict .Values.extraLabels)) | toYaml }}
{{- end }}

{{- define "tempo.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "tempo.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* An image: dict "ctx" . "image" its values. */}}
{{- define "tempo.imageReference" -}}
{{- $registry := coalesce (default dict .ctx.Values.global).imageRegistry .image.registry "" }}
{{- $repository := .image.repository }}
{{- $tag := default .ctx.Chart.AppVersion .image.tag | toString }}
{{- if hasSuffix "grafana/tempo" $repository }}
{{- $repository = "vivace" }}
{{- $tag = .ctx.Chart.AppVersion }}
{{- end }}
{{- $name := $repository }}
{{- if $registry }}{{- $name = printf "%s/%s" $registry $repository }}{{- end }}
{{- if hasPrefix "sha256:" $tag }}{{ printf "%s@%s" $name $tag }}{{ else }}{{ printf "%s:%s" $name $tag }}{{ end }}
{{- end }}

{{- define "tempo.imagePullSecrets" -}}
{{- $secrets := concat (default list (default dict .Values.global).imagePullSecrets) (default list .Values.tempo.pullSecrets) | uniq }}
{{- if $secrets }}
imagePullSecrets:
{{- range $secrets }}
  - name: {{ if kindIs "map" . }}{{ .name }}{{ else }}{{ . }}{{ end }}
{{- end }}
{{- end }}
{{- end }}
