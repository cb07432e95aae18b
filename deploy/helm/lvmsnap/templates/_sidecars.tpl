{{- /*
The sidecars, a container each, so that another topology (all of them in one Deployment) can put them together anew.
They are given .root and, where it makes a difference, .nodeDeployment.
*/ -}}

{{- define "lvmsnap.kubeAPI" -}}
- --kube-api-qps={{ .Values.sidecars.kubeAPIQPS }}
- --kube-api-burst={{ .Values.sidecars.kubeAPIBurst }}
- --timeout={{ .Values.sidecars.timeout }}
- --retry-interval-max={{ .Values.sidecars.retryIntervalMax }}
- --v={{ .Values.sidecars.verbosity }}
{{- end -}}

{{- define "lvmsnap.sidecar.registrar" -}}
- name: node-driver-registrar
  image: {{ .root.Values.sidecars.registrar.image }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args:
    - --csi-address=/csi/csi.sock
    - --kubelet-registration-path={{ include "lvmsnap.socketDir" .root }}/csi.sock
    - --http-endpoint=:9809
    - --v={{ .root.Values.sidecars.verbosity }}
  ports:
    - { name: registrar, containerPort: 9809 }
  livenessProbe: # is the registration socket there?
    httpGet: { path: /healthz, port: registrar }
    initialDelaySeconds: 10
    periodSeconds: 20
    timeoutSeconds: 5
  {{- include "lvmsnap.unprivileged" . | nindent 2 }}
  resources: {{- toYaml .root.Values.sidecars.registrar.resources | nindent 4 }}
  volumeMounts:
    - { name: socket-dir, mountPath: /csi, readOnly: true }
    - { name: registration-dir, mountPath: /registration }
{{- end -}}

{{- define "lvmsnap.sidecar.livenessProbe" -}}
- name: liveness-probe
  image: {{ .root.Values.sidecars.livenessProbe.image }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args:
    - --csi-address=/csi/csi.sock
    - --http-endpoint=:9808
    - --probe-timeout=5s
    - --v={{ .root.Values.sidecars.verbosity }}
  {{- include "lvmsnap.unprivileged" . | nindent 2 }}
  resources: {{- toYaml .root.Values.sidecars.livenessProbe.resources | nindent 4 }}
  volumeMounts:
    - { name: socket-dir, mountPath: /csi, readOnly: true }
{{- end -}}

{{- define "lvmsnap.sidecar.provisioner" -}}
- name: csi-provisioner
  image: {{ .root.Values.sidecars.provisioner.image }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args:
    - --csi-address=/csi/csi.sock
    {{- if .nodeDeployment }}
    - --node-deployment
    {{- end }}
    - --strict-topology
    - --immediate-topology=false
    - --extra-create-metadata
    - --enable-capacity
    - --capacity-ownerref-level=1
    {{- include "lvmsnap.kubeAPI" .root | nindent 4 }}
  env:
    - { name: NODE_NAME, valueFrom: { fieldRef: { fieldPath: spec.nodeName } } }
    - { name: NAMESPACE, valueFrom: { fieldRef: { fieldPath: metadata.namespace } } }
    - { name: POD_NAME, valueFrom: { fieldRef: { fieldPath: metadata.name } } }
  {{- include "lvmsnap.unprivileged" . | nindent 2 }}
  resources: {{- toYaml .root.Values.sidecars.provisioner.resources | nindent 4 }}
  volumeMounts:
    - { name: socket-dir, mountPath: /csi, readOnly: true }
{{- end -}}

{{- define "lvmsnap.sidecar.snapshotter" -}}
- name: csi-snapshotter
  image: {{ .root.Values.sidecars.snapshotter.image }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args:
    - --csi-address=/csi/csi.sock
    {{- if .nodeDeployment }}
    - --node-deployment
    {{- end }}
    - --extra-create-metadata
    # Nobody labels the contents of a group with their node, so that no node would take them; off, it needs no rights for them.
    - --feature-gates=CSIVolumeGroupSnapshot=false
    {{- include "lvmsnap.kubeAPI" .root | nindent 4 }}
  env:
    - { name: NODE_NAME, valueFrom: { fieldRef: { fieldPath: spec.nodeName } } }
  {{- include "lvmsnap.unprivileged" . | nindent 2 }}
  resources: {{- toYaml .root.Values.sidecars.snapshotter.resources | nindent 4 }}
  volumeMounts:
    - { name: socket-dir, mountPath: /csi, readOnly: true }
{{- end -}}

{{- define "lvmsnap.sidecar.resizer" -}}
- name: csi-resizer
  image: {{ .root.Values.sidecars.resizer.image }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args:
    - --csi-address=/csi/csi.sock
    - --leader-election
    - --http-endpoint=:9810
    # Volumes in use are expanded: nothing to wait for, and no right to read pods.
    - --handle-volume-inuse-error=false
    {{- include "lvmsnap.kubeAPI" .root | nindent 4 }}
  ports:
    - { name: resizer, containerPort: 9810 }
  startupProbe: # nothing is served until the driver has answered, which may be on its way to this node
    httpGet: { path: /healthz/leader-election, port: resizer }
    periodSeconds: 5
    timeoutSeconds: 5
    failureThreshold: 60
  livenessProbe:
    httpGet: { path: /healthz/leader-election, port: resizer }
    periodSeconds: 20
    timeoutSeconds: 5
  {{- include "lvmsnap.unprivileged" . | nindent 2 }}
  resources: {{- toYaml .root.Values.sidecars.resizer.resources | nindent 4 }}
  volumeMounts:
    - { name: socket-dir, mountPath: /csi, readOnly: true }
{{- end -}}
