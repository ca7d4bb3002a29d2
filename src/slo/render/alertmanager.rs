//! Alertmanager's part: who is called, and which alert makes another one superfluous.
//!
//! In: how severities are called. Out: a snippet that is a valid config by itself, and a whole example with receivers.
//! Invariant: an inhibition names the label that joins both sides (`slo_id`, `node`) as not empty on its target: to
//! Alertmanager two missing labels are equal, and a page of one objective would silence the tickets of all others.

use super::super::config::Defaults;
use super::{HEADER, Urgency};

fn inhibition(defaults: &Defaults) -> String {
    let name = |urgency: Urgency| urgency.name(defaults.severities);
    format!(
        "\
inhibit_rules:
# A page says what the ticket of the same objective would say.
- source_matchers: ['alertname=\"SLOErrorBudgetBurn\"']
  target_matchers: ['alertname=\"SLOErrorBudgetBurnSlow\"', 'slo_id!=\"\"']
  equal: [cluster, slo_id]
# Without traffic the last errors are no news.
- source_matchers: ['alertname=\"SLOTrafficVanished\"']
  target_matchers: ['alertname=~\"SLOErrorBudgetBurn|SLOErrorBudgetBurnSlow\"', 'slo_id!=\"\"']
  equal: [cluster, slo_id]
# An agent that is down explains everything else that its node lacks.
- source_matchers: ['alertname=\"NodewickDownOnNode\"']
  target_matchers: ['alertname=~\"Nodewick.+\"', 'alertname!=\"NodewickDownOnNode\"', 'node!=\"\"']
  equal: [cluster, node]
# A page about an agent says what the ticket of the same name would say.
- source_matchers: ['alertname=~\"Nodewick.+\"', 'severity=\"{}\"']
  target_matchers: ['alertname=~\"Nodewick.+\"', 'severity=\"{}\"', 'node!=\"\"']
  equal: [cluster, alertname, node]
",
        name(Urgency::Page),
        name(Urgency::Ticket)
    )
}

fn routes(defaults: &Defaults) -> String {
    let name = |urgency: Urgency| urgency.name(defaults.severities);
    format!(
        "\
route:
  receiver: tickets
  group_by: [cluster, namespace, slo_id, alertname]
  group_wait: 30s
  group_interval: 5m
  repeat_interval: 12h
  routes:
  - matchers: ['severity=\"{}\"']
    receiver: pages
    group_wait: 10s
    repeat_interval: 1h
  - matchers: ['severity=\"{}\"']
    receiver: tickets
  - matchers: ['severity=\"{}\"']
    receiver: nobody
",
        name(Urgency::Page),
        name(Urgency::Ticket),
        name(Urgency::Info)
    )
}

/// Routes and inhibition to merge into a config, with receivers that do nothing.
pub(super) fn snippet(defaults: &Defaults) -> String {
    format!(
        "{HEADER}# Merge into alertmanager.yml; the receivers are yours.\n{}receivers:\n- name: pages\n- name: tickets\n- name: \
         nobody\n{}",
        routes(defaults),
        inhibition(defaults)
    )
}

/// A whole config with PagerDuty, Slack and e-mail; every secret is a file.
pub(super) fn example(defaults: &Defaults) -> String {
    let traces =
        if defaults.trace_evidence { "      Traces: {{ .Annotations.sample_trace_ids }}\n" } else { "" };
    format!(
        "\
{HEADER}# An example to start from: addresses are invented, secrets are files. Check it with `amtool check-config`.
global:
  smtp_smarthost: smtp.example.com:587
  smtp_from: alertmanager@example.com
  smtp_auth_username: alertmanager
  smtp_auth_password_file: /etc/alertmanager/secrets/smtp-password
{}receivers:
- name: pages
  pagerduty_configs:
  - routing_key_file: /etc/alertmanager/secrets/pagerduty-key
    description: '{{{{ (index .Alerts 0).Annotations.summary }}}}'
    details:
      description: '{{{{ (index .Alerts 0).Annotations.description }}}}'
      top_routes: '{{{{ (index .Alerts 0).Annotations.top_routes }}}}'
      worst_pods: '{{{{ (index .Alerts 0).Annotations.worst_pods }}}}'
      logs_query: '{{{{ (index .Alerts 0).Annotations.logs_query }}}}'
    links:
    - href: '{{{{ (index .Alerts 0).Annotations.runbook_url }}}}'
      text: Runbook
    - href: '{{{{ (index .Alerts 0).Annotations.dashboard_url }}}}'
      text: Dashboard
  slack_configs:
  - api_url_file: /etc/alertmanager/secrets/slack-url
    channel: '#on-call'
    send_resolved: true
    title: '[{{{{ .Status | toUpper }}}}] {{{{ (index .Alerts 0).Annotations.summary }}}}'
    text: |-
      {{{{ range .Alerts }}}}{{{{ .Annotations.description }}}}
      Routes: {{{{ .Annotations.top_routes }}}}
      Pods: {{{{ .Annotations.worst_pods }}}}
      Logs: {{{{ .Annotations.logs_query }}}}
{traces}      {{{{ .Annotations.dashboard_url }}}} {{{{ .Annotations.runbook_url }}}}
      {{{{ end }}}}
- name: tickets
  email_configs:
  - to: on-call@example.com
    send_resolved: true
- name: nobody
{}",
        routes(defaults),
        inhibition(defaults)
    )
}
