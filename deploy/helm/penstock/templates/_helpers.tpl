{{- /* Names have at most 36 characters, because the longest suffix, of the certificate's Job, must fit into 63, too. */ -}}
{{- define "penstock.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 36 | trimSuffix "-" -}}
{{- end -}}

{{- define "penstock.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 36 | trimSuffix "-" -}}
{{- else if contains (include "penstock.name" .) .Release.Name -}}
{{- .Release.Name | trunc 36 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "penstock.name" .) | trunc 36 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "penstock.webhook" -}}
{{ include "penstock.fullname" . }}-webhook
{{- end -}}

{{- define "penstock.secret" -}}
{{- default (printf "%s-tls" (include "penstock.webhook" .)) .Values.webhook.certificate.secretName -}}
{{- end -}}

{{- define "penstock.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: {{ include "penstock.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "penstock.selector" -}}
app.kubernetes.io/name: {{ include "penstock.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "penstock.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- /* The security context of the chart's Pods: minimal permissions. */ -}}
{{- define "penstock.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "penstock.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* The certificate authority that the API server must trust. Empty if cert-manager or the Job writes it. The value that an
       earlier Job wrote is also used for a webhook that an upgrade adds, which otherwise would refuse everything until the next
       Job has run. */ -}}
{{- define "penstock.caBundle" -}}
{{- if eq .Values.webhook.certificate.from "secret" -}}
{{- .Values.webhook.certificate.caBundle -}}
{{- else if eq .Values.webhook.certificate.from "job" -}}
{{- $current := lookup "admissionregistration.k8s.io/v1" "ValidatingWebhookConfiguration" "" (include "penstock.webhook" .) -}}
{{- with first (default (list dict) (get $current "webhooks")) -}}
{{- dig "clientConfig" "caBundle" "" . -}}
{{- end -}}
{{- end -}}
{{- end -}}
