{{/* Name of the chart's objects. */}}
{{- define "datjob.fullname" -}}
{{- default (printf "%s-operator" (.Release.Name | trunc 43 | trimSuffix "-")) .Values.fullnameOverride -}}
{{- end -}}

{{/* Labels that select the operator's pods; immutable within a release. */}}
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
The operator's permissions in the namespaces it watches. They exclude secrets: the pods' state reports problems with a secret.
*/}}
{{- define "datjob.rules" -}}
- apiGroups: [datjob.io]
  resources: [datjobs]
  verbs: [get, list, watch]
- apiGroups: [datjob.io]
  resources: [datjobs/status]
  verbs: [patch]
# Owner references of a job's objects set blockOwnerDeletion. Only clusters with the admission plugin
# OwnerReferencesPermissionEnforcement (such as OpenShift) require this rule.
- apiGroups: [datjob.io]
  resources: [datjobs/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, update]
- apiGroups: [apps]
  resources: [statefulsets/scale]
  verbs: [patch]
# Not list and watch: they would include the ConfigMaps of all users.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, update]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, update, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, update, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# Events say why a pod does not start: a missing claim, a volume that cannot be mounted, an exhausted quota.
- apiGroups: [""]
  resources: [events]
  verbs: [list]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
