{{/*
Keys of the values that no chart knows, one a line, each with the known key beside it that is spelled most alike:
dict "values" .Values "known" (tree of files/known-values.json) "path" "".
*/}}
{{- define "tempo.unknownKeys" -}}
{{- range $key, $value := .values }}
{{- $path := empty $.path | ternary $key (printf "%s.%s" $.path $key) }}
{{- if not (hasKey $.known $key) }}
{{- $near := include "tempo.nearestKey" (dict "key" $key "keys" (keys $.known | sortAlpha)) }}
{{- print "\n" $path }}
{{- if $near }} (did you mean {{ empty $.path | ternary $near (printf "%s.%s" $.path $near) }}?){{ end }}
{{- else if and (kindIs "map" $value) (kindIs "map" (get $.known $key)) }}
{{- include "tempo.unknownKeys" (dict "values" $value "known" (get $.known $key) "path" $path) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Pairs of neighbouring letters of a word, in lower case. */}}
{{- define "tempo.letterPairs" -}}
{{- $pairs := list }}
{{- $word := . | lower | replace "_" "" | replace "-" "" }}
{{- range $i := until (max 0 (sub (len $word) 1) | int) }}
{{- $pairs = append $pairs (substr $i (int (add $i 2)) $word) }}
{{- end }}
{{- toJson $pairs }}
{{- end }}

{{/* The key that has most pairs of letters in common with another; empty where none has four in ten. */}}
{{- define "tempo.nearestKey" -}}
{{- $pairs := include "tempo.letterPairs" .key | fromJsonArray }}
{{- $best := "" }}
{{- $most := 40 }}
{{- range $candidate := .keys }}
{{- $others := include "tempo.letterPairs" $candidate | fromJsonArray }}
{{- $common := 0 }}
{{- range $pair := $pairs }}{{- if has $pair $others }}{{- $common = add1 $common }}{{- end }}{{- end }}
{{- $share := div (mul 200 $common) (max 1 (add (len $pairs) (len $others))) }}
{{- if gt (int $share) (int $most) }}
{{- $most = $share }}
{{- $best = $candidate }}
{{- end }}
{{- end }}
{{- $best }}
{{- end }}
