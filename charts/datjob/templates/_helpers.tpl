{{/* Name of everything the chart creates. */}}
{{- define "datjob.fullname" -}}
{{- default (printf "%s-operator" (.Release.Name | trunc 43 | trimSuffix "-")) .Values.fullnameOverride -}}
{{- end -}}

{{/* What selects the operator's pods; never changes within a release. */}}
{{- define "datjob.selectorLabels" -}}
app.kubernetes.io/name: datjob-operator
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "datjob.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "datjob.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: datjob
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "datjob.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "datjob.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* An image's reference: (list $ .Values.image) */}}
{{- define "datjob.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- printf "%s:%s" $image.repository (default $root.Chart.AppVersion $image.tag) -}}
{{- end -}}

{{/*
What the operator may do where it watches. No secrets: what only a secret could tell is read from the pods' own state.
*/}}
{{- define "datjob.rules" -}}
- apiGroups: [datjob.io]
  resources: [datjobs]
  verbs: [get, list, watch]
- apiGroups: [datjob.io]
  resources: [datjobs/status]
  verbs: [patch]
# Children name their job as an owner that waits for them; needed only where the API server runs the admission plugin
# OwnerReferencesPermissionEnforcement (OpenShift does).
- apiGroups: [datjob.io]
  resources: [datjobs/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [apps]
  resources: [statefulsets/scale]
  verbs: [patch]
- apiGroups: [""]
  resources: [configmaps, services]
  verbs: [get, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
# Why a pod does not start: a claim that is not there, a volume that cannot be mounted, a quota that is used up.
- apiGroups: [""]
  resources: [events]
  verbs: [list]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
