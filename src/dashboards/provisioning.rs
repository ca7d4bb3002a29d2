//! Files that Grafana reads at its start: data sources that know each other, and where the dashboards are.
//!
//! In: nothing. Out: YAML. Addresses come from Grafana's environment. Invariant: from an exemplar and from a log line a click
//! leads to the trace, and from a trace to its lines.

use super::File;

const DASHBOARDS: &str = "\
# Dashboards of nodewick from files. Mount dashboards/grafana where `path` says.
apiVersion: 1
providers:
  - name: nodewick
    orgId: 1
    folder: nodewick
    type: file
    disableDeletion: true
    allowUiUpdates: false
    updateIntervalSeconds: 60
    options:
      path: /var/lib/grafana/dashboards/nodewick
      foldersFromFilesStructure: false
";

// A dollar sign of Grafana's own is doubled here, as provisioning replaces variables of the environment.
const DATASOURCES: &str = "\
# Data sources that lead to each other. Set PROMETHEUS_URL, LOKI_URL and TEMPO_URL in Grafana's environment.
apiVersion: 1
datasources:
  - name: Prometheus
    uid: nodewick-prometheus
    type: prometheus
    access: proxy
    url: $PROMETHEUS_URL
    isDefault: true
    jsonData:
      httpMethod: POST
      # The agent publishes every 15 s.
      timeInterval: 15s
      exemplarTraceIdDestinations:
        - name: trace_id
          datasourceUid: nodewick-tempo
          urlDisplayLabel: Open the trace
  - name: Loki
    uid: nodewick-loki
    type: loki
    access: proxy
    url: $LOKI_URL
    jsonData:
      maxLines: 1000
      derivedFields:
        # Structured metadata of the agent's lines.
        - name: trace
          matcherType: label
          matcherRegex: trace_id
          url: $${__value.raw}
          datasourceUid: nodewick-tempo
          urlDisplayLabel: Open the trace
        # Grafana before 10.3 knows no matchers of labels: the id as the line has it.
        - name: trace in line
          matcherType: regex
          matcherRegex: '\"trace_?[iI]d\":\\s*\"([0-9a-f]{32})\"'
          url: $${__value.raw}
          datasourceUid: nodewick-tempo
          urlDisplayLabel: Open the trace
  - name: Tempo
    uid: nodewick-tempo
    type: tempo
    access: proxy
    url: $TEMPO_URL
    jsonData:
      tracesToLogsV2:
        datasourceUid: nodewick-loki
        spanStartTimeShift: -5m
        spanEndTimeShift: 5m
        customQuery: true
        tags:
          - key: service.name
            value: service_name
        query: '{$${__tags}} | trace_id=\"$${__trace.traceId}\"'
      tracesToMetrics:
        datasourceUid: nodewick-prometheus
        spanStartTimeShift: -15m
        spanEndTimeShift: 15m
        tags:
          - key: service.name
            value: service
        queries:
          - name: Requests
            query: 'sum by (code_class) (rate(red_requests_total{$$__tags}[5m]))'
      serviceMap:
        datasourceUid: nodewick-prometheus
      nodeGraph:
        enabled: true
";

pub(super) fn files() -> Vec<File> {
    [
        ("provisioning/dashboards/nodewick.yaml", DASHBOARDS),
        ("provisioning/datasources/nodewick.yaml", DATASOURCES),
    ]
    .map(|(path, text)| File { path: path.to_owned(), text: text.to_owned() })
    .into()
}
