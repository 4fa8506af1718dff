{{/* Prefix of all names. */}}
{{- define "finetune.fullname" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Watched namespaces, as a JSON list. */}}
{{- define "finetune.namespaces" -}}
{{- .Values.watchNamespaces | default (list .Release.Namespace) | uniq | toJson -}}
{{- end -}}

{{- define "finetune.secretName" -}}
{{- .Values.secret.existingSecret | default (printf "%s-internal" (include "finetune.fullname" .)) -}}
{{- end -}}

{{/* Where models of the hub go; a pod can't have the same claim twice. */}}
{{- define "finetune.baseModelsClaim" -}}
{{- $claim := .Values.baseModels.claimName | default .Values.storage.models.claimName -}}
{{- if eq $claim .Values.storage.artifacts.claimName -}}
{{- fail "baseModels.claimName must name another volume than storage.artifacts.claimName" -}}
{{- end -}}
{{- $claim -}}
{{- end -}}

{{/* Labels of every object; arguments: root, component. */}}
{{- define "finetune.labels" -}}
{{- $own := dict
  "app.kubernetes.io/version" .root.Chart.AppVersion
  "app.kubernetes.io/managed-by" .root.Release.Service
  "app.kubernetes.io/part-of" "finetune-operator"
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_")
-}}
{{- merge (include "finetune.selectorLabels" . | fromYaml) $own .root.Values.commonLabels | toYaml -}}
{{- end -}}

{{/* Labels by which Deployments, Services and policies find pods, which never change; arguments: root, component. */}}
{{- define "finetune.selectorLabels" -}}
app.kubernetes.io/name: finetune-operator
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Reference of an image; arguments: root, image (one of values.image). */}}
{{- define "finetune.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "finetune.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* What all pods of the chart have in common, Pod Security `restricted` above all; arguments: root, settings. */}}
{{- define "finetune.podSettings" -}}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- include "finetune.pullSecrets" .root }}
{{- range $field := list "nodeSelector" "tolerations" "affinity" "priorityClassName" }}
{{- with get $.settings $field }}
{{ $field }}: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "finetune.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* A variable from the internal Secret; arguments: root, name, key. */}}
{{- define "finetune.secretVariable" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef: {name: {{ include "finetune.secretName" .root }}, key: {{ .key }}}
{{- end -}}

{{/* Variables that all three processes read. */}}
{{- define "finetune.commonVariables" -}}
- name: FINETUNE_NAMESPACES
  value: {{ include "finetune.namespaces" . | fromJsonArray | join "," | quote }}
- name: FINETUNE_LOG_LEVEL
  value: {{ .Values.logLevel }}
{{ include "finetune.secretVariable" (dict "root" . "name" "FINETUNE_INTERNAL_TOKEN" "key" "internal-token") }}
{{- end -}}

{{/* Readiness, liveness and start of a web process on the port named http. The api brings its database to the newest
schema before it answers, which takes minutes where there are millions of votes, and begins anew if it is killed. */}}
{{- define "finetune.webProbes" -}}
startupProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 1
  failureThreshold: 900
livenessProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 3
  # On a node whose cores are all taken a slow answer is better than none, which is what no ready pod gives.
  timeoutSeconds: 5
  failureThreshold: 6
{{- end -}}

{{- define "finetune.apiUrl" -}}
http://{{ include "finetune.fullname" . }}-api.{{ .Release.Namespace }}.svc
{{- end -}}

{{- define "finetune.gatewayUrl" -}}
http://{{ include "finetune.fullname" . }}-gateway.{{ .Release.Namespace }}.svc
{{- end -}}
