{{/* A FineTuneJob to paste, of the profile's size. */}}
{{- define "finetune.firstJob" -}}
apiVersion: finetune.dev/v1alpha1
kind: FineTuneJob
metadata:
  name: plato-first
  namespace: {{ include "finetune.namespaces" . | fromJsonArray | first }}
spec:
  model: plato
{{- if eq .Values.profile "cpu" }}
  baseModel:
    name: tiny-llama
    source: {volume: {claimName: {{ .Values.storage.models.claimName }}, path: tiny-llama}}
{{- else }}
  baseModel:
    name: qwen3-8b
    source: {hub: {id: Qwen/Qwen3-8B}}
{{- end }}
  dataset:
    ratings:
      secretRef: {name: ratings-db, key: url}
{{- if eq .Values.profile "cpu" }}
      claimName: ratings # for SQLite only, as in examples/ratings-db.yaml
{{- end }}
      minRating: 4
{{- if eq .Values.profile "cpu" }}
  training: {epochs: 3, batchSize: 4, maxSeqLength: 256, quantization: none}
  resources:
    requests: {cpu: 500m, memory: 2Gi}
    limits: {memory: 6Gi}
  serving:
    maxModelLen: 512
    resources:
      requests: {cpu: 500m, memory: 3Gi}
      limits: {memory: 8Gi}
{{- else }}
  training: {epochs: 3, batchSize: 4, maxSeqLength: 2048, quantization: 4bit}
  resources:
    limits: {nvidia.com/gpu: 1, memory: 32Gi}
  serving:
    resources:
      limits: {nvidia.com/gpu: 1, memory: 32Gi}
{{- end }}
  promotion: Always
{{- end -}}
