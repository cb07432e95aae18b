{{- /* What everything is named after. */ -}}
{{- define "lvmsnap.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "lvmsnap.labels" -}}
app.kubernetes.io/name: lvmsnap
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- /* What selects the pods of a component: never changed, for selectors cannot be. */ -}}
{{- define "lvmsnap.selector" -}}
app.kubernetes.io/name: lvmsnap
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "lvmsnap.socketDir" -}}
{{ .Values.driver.kubeletDir }}/plugins/{{ .Values.driver.name }}
{{- end -}}

{{- /* For containers that need nothing of the node but the socket, which belongs to root and has permissions 0600. */ -}}
{{- define "lvmsnap.unprivileged" -}}
securityContext:
  runAsUser: 0
  runAsGroup: 0
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
  {{- with .root.Values.sidecars.seLinuxOptions }}
  seLinuxOptions: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
