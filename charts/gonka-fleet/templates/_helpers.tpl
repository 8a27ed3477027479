{{- define "gonka-fleet.labels" -}}
app.kubernetes.io/name: gonka-fleet
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "gonka-fleet.operatorUser" -}}
system:serviceaccount:{{ .Release.Namespace }}:gonka-operator
{{- end -}}

{{- /* FleetSignal's certificate: the operator's own, or a provided one. */ -}}
{{- define "gonka-fleet.signalSecret" -}}
{{ .Values.fleetSignal.tls.secretName | default "gonka-fleet-signal-tls" }}
{{- end -}}

{{- /* The operator raises an alarm when one of these is gone. */ -}}
{{- define "gonka-fleet.admissionPolicies" -}}
gonka-fleet-protected,gonka-fleet-protected-pod-phase,gonka-fleet-marks,gonka-fleet-broken-glass,gonka-fleet-slot-endpoints,gonka-fleet-slot-services,gonka-fleet-slot-mirrors,gonka-fleet-agent-own-node,gonka-fleet-operator-nodes,gonka-fleet-operator-metadata
{{- end -}}

{{- define "gonka-fleet.restricted" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- /* The agent DaemonSet: rendered into a ConfigMap for the operator, or applied by Helm itself. */ -}}
{{- define "gonka-fleet.agentDaemonSet" -}}
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: gonka-agent
  namespace: {{ .Release.Namespace }}
  labels:
    {{- include "gonka-fleet.labels" . | nindent 4 }}
    fleet.gonka.ai/role: agent
spec:
  selector: {matchLabels: {fleet.gonka.ai/role: agent}}
  updateStrategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 1}}
  template:
    metadata:
      labels:
        {{- include "gonka-fleet.labels" . | nindent 8 }}
        fleet.gonka.ai/role: agent
    spec:
      serviceAccountName: gonka-agent
      priorityClassName: system-node-critical
      nodeSelector:
        {{- $selector := splitn "=" 2 .Values.gpuNodeSelector }}
        {{ $selector._0 }}: {{ $selector._1 | default "" | quote }}
      tolerations: [{operator: Exists}]
      containers:
        - name: agent
          image: {{ .Values.agent.image }}
          imagePullPolicy: {{ .Values.agent.imagePullPolicy }}
          command: [/usr/bin/node-agent, run, --sample-interval={{ .Values.agent.sampleInterval }}]
          env:
            - {name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
            {{- if .Values.agent.driverLibraryPath }}
            - {name: LD_LIBRARY_PATH, value: /driver}
            {{- end }}
            {{- range $name, $value := .Values.agent.env }}
            - {name: {{ $name }}, value: {{ $value | quote }}}
            {{- end }}
          ports:
            - {name: metrics, containerPort: 9490}
            - {name: probes, containerPort: 8081}
          readinessProbe: {httpGet: {path: /readyz, port: probes}, periodSeconds: 5}
          livenessProbe: {httpGet: {path: /healthz, port: probes}, periodSeconds: 20, failureThreshold: 6}
          resources: {{ toYaml .Values.agent.resources | nindent 12 }}
          # Root for the kubelet's PodResources socket; without any capability it can read, not act.
          securityContext:
            allowPrivilegeEscalation: false
            capabilities: {drop: [ALL]}
            readOnlyRootFilesystem: true
            runAsUser: 0
            seccompProfile: {type: RuntimeDefault}
          volumeMounts:
            - {name: state, mountPath: /var/lib/gonka-agent}
            - {name: pod-resources, mountPath: /var/lib/kubelet/pod-resources, readOnly: true}
            {{- if .Values.agent.driverLibraryPath }}
            - {name: driver, mountPath: /driver, readOnly: true}
            {{- end }}
            {{- range $host, $path := .Values.agent.hostPaths }}
            - {name: host-{{ $host | sha256sum | trunc 8 }}, mountPath: {{ $path }}, readOnly: true}
            {{- end }}
      volumes:
        - {name: state, hostPath: {path: /var/lib/gonka-agent, type: DirectoryOrCreate}}
        - {name: pod-resources, hostPath: {path: /var/lib/kubelet/pod-resources, type: DirectoryOrCreate}}
        {{- if .Values.agent.driverLibraryPath }}
        - {name: driver, hostPath: {path: {{ .Values.agent.driverLibraryPath }}}}
        {{- end }}
        {{- range $host, $path := .Values.agent.hostPaths }}
        - {name: host-{{ $host | sha256sum | trunc 8 }}, hostPath: {path: {{ $host }}, type: DirectoryOrCreate}}
        {{- end }}
{{- end -}}
