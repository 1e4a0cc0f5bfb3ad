{{/*
An image: dict "ctx" . "component" "distributor", or for a foreign program "image" (its values) instead of "component".
With both, as for "cli", it is Vivace's, and "image" has the component's values.
The registry is the first one set of global.image.registry, the component's, and tempo.image.registry; docker.io as the global one,
which is the reference's default, comes last. A repository that begins with a host has its registry in it.
*/}}
{{- define "tempo.imageReference" -}}
{{- $global := default dict (default dict .ctx.Values.global).image }}
{{- $own := default dict .image }}
{{- $common := dict }}
{{- if .component }}
{{- $own = default (default dict (include "tempo.componentValues" . | fromYaml).image) .image }}
{{- $common = .ctx.Values.tempo.image }}
{{- end }}
{{- $registry := coalesce (eq (default "" $global.registry) "docker.io" | ternary nil $global.registry) $own.registry $common.registry $global.registry "" }}
{{- $repository := coalesce $own.repository $common.repository }}
{{- $tag := coalesce $own.tag $common.tag .ctx.Chart.AppVersion | toString }}
{{- if and .component (hasSuffix "grafana/tempo" $repository) }}
{{- $repository = "vivace" }}
{{- $tag = .ctx.Chart.AppVersion }}
{{- end }}
{{- if and .component $common.perComponent (not $own.repository) }}
{{- $repository = printf "%s-%s" $repository .component }}
{{- end }}
{{- $name := $repository }}
{{- if and $registry (not (regexMatch "^(localhost|[^/]*[.:][^/]*)/" $repository)) }}{{- $name = printf "%s/%s" $registry $repository }}{{- end }}
{{- if hasPrefix "sha256:" $tag }}{{ printf "%s@%s" $name $tag }}{{ else }}{{ printf "%s:%s" $name $tag }}{{ end }}
{{- end }}

{{/* "true" where the values name Tempo's own image for a component: dict "ctx" . "component" "distributor". */}}
{{- define "tempo.namesTempoImage" -}}
{{- $own := default dict (include "tempo.componentValues" . | fromYaml).image }}
{{- hasSuffix "grafana/tempo" (coalesce $own.repository .ctx.Values.tempo.image.repository "") }}
{{- end }}

{{/* Secrets to pull with, as the reference chart merges them. */}}
{{- define "tempo.imagePullSecrets" -}}
{{- $global := default dict (default dict .ctx.Values.global).image }}
{{- $own := default dict (default dict .values).image }}
{{- $secrets := concat (default list $global.pullSecrets) (default list .ctx.Values.tempo.image.pullSecrets) (default list $own.pullSecrets) | uniq }}
{{- if $secrets }}
imagePullSecrets:
{{- range $secrets }}
  - name: {{ if kindIs "map" . }}{{ tpl .name $.ctx }}{{ else }}{{ tpl . $.ctx }}{{ end }}
{{- end }}
{{- end }}
{{- end }}
