{{/* Names, labels and images. */}}

{{- define "spiderpool.name" -}}
{{- default "spiderpool" .Values.global.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{/* What selects the pods of a component: {root, component}. */}}
{{- define "spiderpool.selector" -}}
app.kubernetes.io/name: {{ include "spiderpool.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "spiderpool.labels" -}}
{{ include "spiderpool.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/*
Metadata of an object: {root, name, component}, and where wanted namespace, labels, annotations, scope: cluster,
hook (its events) and weight, keep: true if a hook object shall outlive its success, rights: true if it is what a hook's
pod needs, which shall not outlive its failure either.
*/}}
{{- define "spiderpool.metadata" -}}
{{- include "spiderpool.complete" .root -}}
{{- $global := .root.Values.global -}}
{{- $labels := tpl (toYaml $global.commonLabels) .root | fromYaml -}}
{{- $labels = mergeOverwrite $labels (.labels | default dict) (include "spiderpool.labels" . | fromYaml) -}}
{{- $annotations := tpl (toYaml $global.commonAnnotations) .root | fromYaml -}}
{{- $annotations = mergeOverwrite $annotations (.annotations | default dict) -}}
{{- if .hook -}}
{{- $_ := set $annotations "helm.sh/hook" .hook -}}
{{- $_ := set $annotations "helm.sh/hook-weight" (.weight | default 0 | toString) -}}
{{- $policy := ternary "before-hook-creation" "before-hook-creation,hook-succeeded" (.keep | default false) -}}
{{- if .rights -}}{{- $policy = printf "%s,hook-failed" $policy -}}{{- end -}}
{{- $_ := set $annotations "helm.sh/hook-delete-policy" $policy -}}
{{- end -}}
{{- $metadata := dict "name" .name "labels" $labels -}}
{{- if ne (.scope | default "") "cluster" -}}
{{- $_ := set $metadata "namespace" (.namespace | default .root.Release.Namespace) -}}
{{- end -}}
{{- if $annotations -}}
{{- $_ := set $metadata "annotations" $annotations -}}
{{- end -}}
{{- toYaml $metadata -}}
{{- end }}

{{/* {root, component}, and where wanted labels and annotations: metadata of a pod. */}}
{{- define "spiderpool.podMetadata" -}}
{{- $global := .root.Values.global -}}
{{- $labels := tpl (toYaml $global.commonLabels) .root | fromYaml -}}
{{- $labels = mergeOverwrite $labels (.labels | default dict) (include "spiderpool.labels" . | fromYaml) -}}
{{- $annotations := tpl (toYaml $global.commonAnnotations) .root | fromYaml -}}
{{- $annotations = mergeOverwrite $annotations (.annotations | default dict) -}}
{{- $metadata := dict "labels" $labels -}}
{{- if $annotations -}}
{{- $_ := set $metadata "annotations" $annotations -}}
{{- end -}}
{{- toYaml $metadata -}}
{{- end }}

{{/* {root, image}: the full name. */}}
{{- define "spiderpool.image" -}}
{{- $registry := .root.Values.global.imageRegistryOverride | default .image.registry -}}
{{- $version := printf ":v%s" .root.Chart.AppVersion -}}
{{- if .image.tag -}}{{- $version = printf ":%s" .image.tag -}}{{- end -}}
{{- if .image.digest -}}{{- $version = printf "@%s" .image.digest -}}{{- end -}}
{{- printf "%s/%s%s" $registry .image.repository $version -}}
{{- end }}

{{/* {root, image}: the two fields of a container. */}}
{{- define "spiderpool.container.image" -}}
image: {{ include "spiderpool.image" . | quote }}
imagePullPolicy: {{ .image.pullPolicy }}
{{- end }}

{{/* The pull secrets of a pod with these images. */}}
{{- define "spiderpool.pullSecretsOf" -}}
{{- $all := list -}}
{{- range . -}}{{- $all = concat $all (.imagePullSecrets | default list) -}}{{- end -}}
{{- include "spiderpool.pullSecrets" (dict "imagePullSecrets" (uniq $all)) -}}
{{- end }}

{{/* An image's pull secrets. */}}
{{- define "spiderpool.pullSecrets" -}}
{{- with .imagePullSecrets -}}
imagePullSecrets:
{{- range . }}
  - name: {{ if kindIs "map" . }}{{ .name }}{{ else }}{{ . }}{{ end }}
{{- end }}
{{- end }}
{{- end }}
