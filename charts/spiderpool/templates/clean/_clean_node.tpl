{{/* The DaemonSet that the clean Job puts on the nodes once the agents are gone. */}}
{{- define "spiderpool.cleanNode" -}}
{{- $agent := .Values.spiderpoolAgent -}}
{{- $global := .Values.global -}}
{{- /* Also if it is not to be installed: a node may not have had an agent since. */ -}}
{{- $multus := .Values.multus.multusCNI.uninstall -}}
{{- $socketFolder := dir $global.ipamUNIXSocketHostPath -}}
{{- $component := dict "root" $ "component" "spiderpool-clean-node" -}}
{{- $image := include "spiderpool.container.image" (dict "root" $ "image" $agent.image) -}}
apiVersion: apps/v1
kind: DaemonSet
metadata:
  {{- include "spiderpool.metadata" (dict "root" $ "name" "spiderpool-clean-node" "component" "spiderpool-clean-node") | nindent 2 }}
spec:
  selector:
    matchLabels:
      {{- include "spiderpool.selector" $component | nindent 6 }}
  template:
    metadata:
      {{- include "spiderpool.podMetadata" $component | nindent 6 }}
    spec:
      {{- with include "spiderpool.pullSecrets" $agent.image }}
      {{- . | nindent 6 }}
      {{- end }}
      serviceAccountName: {{ $agent.name }}
      hostNetwork: true
      dnsPolicy: ClusterFirstWithHostNet
      terminationGracePeriodSeconds: 5
      priorityClassName: {{ $agent.priorityClassName | quote }}
      securityContext:
        seccompProfile:
          type: RuntimeDefault
      nodeSelector:
        {{- toYaml $agent.nodeSelector | nindent 8 }}
      tolerations:
        {{- toYaml $agent.tolerations | nindent 8 }}
      {{- with $agent.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      initContainers:
        - name: clean-node
          {{- $image | nindent 10 }}
          command: [{{ $agent.binName | quote }}]
          args:
            - clean-node
            - --config-path=/tmp/spiderpool/config-map/conf.yml
            - --host=/host
            - {{ printf "--cni-bin=%s" $global.cniBinHostPath | quote }}
            - {{ printf "--state-dir=%s" $socketFolder | quote }}
            {{- if $multus }}
            - {{ printf "--multus=%s" $global.cniConfHostPath | quote }}
            {{- end }}
          resources:
            {{- toYaml $agent.initResources | nindent 12 }}
          env:
            {{- include "spiderpool.env.field" (dict "name" "SPIDERPOOL_NODE_NAME" "path" "spec.nodeName") | nindent 12 }}
          securityContext:
            {{- include "spiderpool.securityContext.node" (dict "add" (list "NET_ADMIN")) | nindent 12 }}
          volumeMounts:
            - {name: config, mountPath: /tmp/spiderpool/config-map, readOnly: true}
            - {name: cni-bin, mountPath: {{ printf "/host%s" $global.cniBinHostPath | quote }}}
            {{- if $multus }}
            - {name: cni-conf, mountPath: {{ printf "/host%s" $global.cniConfHostPath | quote }}}
            {{- end }}
            # The folders above, because the folders themselves go.
            - {name: socket, mountPath: {{ printf "/host%s" (dir $socketFolder) | quote }}}
            - {name: logs, mountPath: /host/var/log}
            - {name: bpffs, mountPath: /sys/fs/bpf}
      containers:
        # Ready means: this node is done.
        - name: done
          {{- $image | nindent 10 }}
          command: [{{ $agent.binName | quote }}]
          args: [wait]
          resources:
            {{- toYaml $agent.initResources | nindent 12 }}
          securityContext:
            {{- include "spiderpool.securityContext.unprivileged" dict | nindent 12 }}
      volumes:
        - name: config
          configMap: {name: {{ $global.configName | quote }}}
        - name: cni-bin
          hostPath: {path: {{ $global.cniBinHostPath | quote }}, type: DirectoryOrCreate}
        {{- if $multus }}
        - name: cni-conf
          hostPath: {path: {{ $global.cniConfHostPath | quote }}, type: DirectoryOrCreate}
        {{- end }}
        - name: socket
          hostPath: {path: {{ dir $socketFolder | quote }}, type: Directory}
        - name: logs
          hostPath: {path: /var/log, type: Directory}
        - name: bpffs
          hostPath: {path: /sys/fs/bpf, type: Directory}
{{- end }}
