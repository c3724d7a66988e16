{{- define "hub.name" -}}edgeferry-hub{{- end }}

{{- define "hub.selector" -}}
app.kubernetes.io/name: edgeferry-hub
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "hub.labels" -}}
{{ include "hub.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "hub.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "hub.scheme" -}}
{{- if or .Values.tls.existingSecret .Values.tls.name }}HTTPS{{ else }}HTTP{{ end }}
{{- end }}
