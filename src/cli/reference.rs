//! `nodewick man --markdown`: the command line as a page of Markdown.
//!
//! In: clap's tree of verbs, the tables below of exit codes and variables. Out: `docs/reference/cli.md`, which a test
//! compares with what is committed. Invariant: each verb and each flag of the tree is on the page, with nothing typed by hand.

use std::fmt::Write as _;

use clap::{Arg, Command};

/// What a process ends with, and who does.
const EXIT_CODES: &[(&str, &str, &str)] = &[
    ("0", "all verbs", "done; the answer is yes"),
    ("1", "all verbs", "a failure at run time; its error is on standard error"),
    (
        "1",
        "`alerts render`, `dashboards render`, `slo render` with `--check`",
        "a file differs from what would be written",
    ),
    ("1", "`check`", "the memory bound does not fit the container's limit"),
    ("1", "`demo`", "a line was lost"),
    ("1", "`doctor`", "something must be mended (×)"),
    ("1", "`run --stdin`", "not everything was delivered in time"),
    ("1", "`slo backtest`", "no objective had any history"),
    ("1", "`slo import`", "some objectives were rejected"),
    ("1", "`status`", "the agent is degraded"),
    ("1", "`test`", "a case failed"),
    ("1", "`why`", "the pod's lines do not flow"),
    ("2", "all verbs", "usage: no such verb or flag, or a value of the wrong form"),
    ("2", "`status`", "the agent is down, or cannot be asked"),
    ("3", "`migrate`", "something could not be translated; standard error says what"),
    (
        "78",
        "all verbs that read a config",
        "the config cannot be used; standard error has file, line and caret",
    ),
    ("78", "`migrate`, `slo import`", "a file cannot be read or understood"),
    ("126, 127", "`exec`", "the command cannot be run; is not found"),
    ("the command's", "`exec`", "its own exit code, or 128 and the number of the signal that ended it"),
];

/// Variables of the environment that are no flags.
const VARIABLES: &[(&str, &str)] = &[
    (
        "NODEWICK_<SECTION>_<KEY>",
        "one key of the [config](config.md), over the file: `NODEWICK_AGENT_CLUSTER`; names stand between `__`: `NODEWICK_SINK__LOKI__MAIN__URL`",
    ),
    (
        "NODEWICK_LOG",
        "filter of the agent's own log, over `[telemetry] log`: `debug`, `warn,nodewick::sink=debug`",
    ),
    ("NODE_NAME", "name of the node, where `[agent] node` says nothing; else the host's name"),
    (
        "NODE_IP",
        "address of the node: the kubelet's in `[kube] mode = \"kubelet\"`, and never scraped for a pod",
    ),
    (
        "POD_NAME, POD_NAMESPACE",
        "the agent's own pod: `[logs] exclude_self`, and whose lines a sidecar ships",
    ),
    ("POD_IP, POD_IPS, HOST_IP", "addresses that are never scraped for a pod"),
    (
        "KUBERNETES_SERVICE_HOST",
        "set by Kubernetes: `[kube] mode = \"auto\"` asks the API server; never scraped for a pod",
    ),
    (
        "OTEL_SERVICE_NAME",
        "the service of `[logs.files]`, `exec` and `run --stdin` where nothing else names it, and of the agent's own telemetry",
    ),
    (
        "OTEL_RESOURCE_ATTRIBUTES",
        "attributes of the lines of `[logs.files]`, `exec` and `run --stdin`, and of the agent's own telemetry",
    ),
    (
        "OTEL_EXPORTER_OTLP_ENDPOINT, …_PROTOCOL",
        "where the agent's own logs and traces go, over `[telemetry]`; with `_TRACES_` or `_LOGS_` after `OTLP` for one of them",
    ),
    (
        "OTEL_SDK_DISABLED, OTEL_TRACES_EXPORTER, OTEL_LOGS_EXPORTER",
        "`true`, or `none`: the agent's own telemetry is not exported",
    ),
    (
        "HTTP_PROXY, HTTPS_PROXY, NO_PROXY",
        "the proxy of backends that name none; loopback is always reached directly",
    ),
    ("SSL_CERT_FILE, SSL_CERT_DIR", "where the platform's certificate authorities are"),
    (
        "XDG_STATE_HOME, HOME, TMPDIR",
        "where `run --logs`, `--stdin` and `exec` keep their state when `[agent] state_dir` cannot be written",
    ),
    ("NO_COLOR", "no colours, whatever its value is, unless it is empty"),
];

/// The page.
pub(super) fn markdown(mut command: Command) -> String {
    command.build();
    let mut page = String::from(
        "<!-- Rendered from the code by `make render`; change the code, not this file. -->\n# Command line reference\n\n\
         Data goes to standard output, notices and errors to standard error; colours to a terminal only. Sizes are written `64MiB`, \
         durations `15s`, shares `1%`, rates `600/m`.\n\n",
    );
    page.push_str("| verb | what |\n|---|---|\n");
    let mut leaves = Vec::new();
    collect(&command, &mut leaves);
    for leaf in &leaves {
        let name = leaf.get_bin_name().unwrap_or_default();
        let anchor = name.replace(' ', "-");
        let _ = writeln!(page, "| [`{name}`](#{anchor}) | {} |", cell(&about(leaf)));
    }
    page.push_str(
        "\n`nodewick` without a verb is `nodewick run`. `-h` explains each verb, `-V` prints the version.\n",
    );
    page.push_str("\nWhat stands in `[…]` may be left out.\n");
    for leaf in &leaves {
        verb(leaf, &mut page);
    }
    page.push_str("\n## Exit codes\n\n| code | verb | meaning |\n|---|---|---|\n");
    for (code, verbs, meaning) in EXIT_CODES {
        let _ = writeln!(page, "| {code} | {verbs} | {meaning} |");
    }
    page.push_str("\n`SIGTERM` and `SIGINT` end `run` in good order, within 25 s; `SIGHUP` lets it read its config again.\n");
    page.push_str("\n## Environment variables\n\nA flag comes before a variable, a variable before the config file.\n\n| variable | what |\n|---|---|\n");
    let mut flags: Vec<(String, String)> = Vec::new();
    for leaf in &leaves {
        for arg in leaf.get_arguments() {
            if let Some(variable) = arg.get_env() {
                let row = (
                    variable.to_string_lossy().into_owned(),
                    format!("`{}` where the flag is not given", long(arg)),
                );
                if !flags.contains(&row) {
                    flags.push(row);
                }
            }
        }
    }
    for (name, what) in flags {
        let _ = writeln!(page, "| `{name}` | {what} |");
    }
    for (names, what) in VARIABLES {
        let names: Vec<String> = names.split(", ").map(|name| format!("`{name}`")).collect();
        let _ = writeln!(page, "| {} | {what} |", names.join(", "));
    }
    page
}

/// Every command that does something, in the order of the tree.
fn collect<'a>(command: &'a Command, found: &mut Vec<&'a Command>) {
    for verb in command.get_subcommands() {
        if verb.has_subcommands() {
            collect(verb, found);
        } else {
            found.push(verb);
        }
    }
}

fn verb(command: &Command, page: &mut String) {
    let name = command.get_bin_name().unwrap_or_default();
    let mut command = command.clone();
    let usage = command.render_usage().to_string();
    let _ = write!(
        page,
        "\n## `{name}`\n\n{}\n\n```text\n{}\n```\n",
        sentence(&about(&command)),
        usage.trim_start_matches("Usage: ")
    );
    let arguments: Vec<&Arg> =
        command.get_arguments().filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version")).collect();
    if !arguments.is_empty() {
        page.push_str("\n| argument | default | what |\n|---|---|---|\n");
    }
    for arg in arguments {
        let takes_value = arg.get_num_args().is_some_and(|number| number.takes_values());
        let code = |text: &str| format!("`{text}`");
        let (mut default, mut values) = (Vec::new(), Vec::new());
        if takes_value {
            default.extend(arg.get_default_values().iter().map(|value| code(&value.to_string_lossy())));
            let shown = arg.get_possible_values().into_iter().filter(|value| !value.is_hide_set());
            values.extend(shown.map(|value| code(value.get_name())));
        }
        let mut what = arg.get_help().map(ToString::to_string).unwrap_or_default();
        if !values.is_empty() {
            let _ = write!(what, ": {}", values.join(", "));
        }
        let required = if arg.is_required_set() { "required" } else { "" };
        let default = if default.is_empty() { required.to_owned() } else { default.join(", ") };
        let _ = writeln!(page, "| {} | {default} | {} |", spelled(arg), cell(&sentence(&what)));
    }
    if let Some(after) = command.get_after_help() {
        let _ = write!(page, "\n{}\n", after.to_string().trim());
    }
}

/// The flag as it is typed: `-c`, `--config <FILE>`.
fn spelled(arg: &Arg) -> String {
    let names: Vec<String> =
        arg.get_value_names().unwrap_or_default().iter().map(|name| format!("<{name}>")).collect();
    let takes = arg.get_num_args().is_some_and(|number| number.takes_values());
    let value = if !takes {
        String::new()
    } else if names.is_empty() {
        format!("<{}>", arg.get_id().as_str().to_uppercase())
    } else {
        names.join(" ")
    };
    if arg.is_positional() {
        return if arg.is_last_set() { format!("`-- {value}…`") } else { format!("`{value}`") };
    }
    let short = arg.get_short().map(|short| format!("`-{short}`, ")).unwrap_or_default();
    let value = if value.is_empty() { value } else { format!(" {value}") };
    format!("{short}`{}{value}`", long(arg))
}

fn long(arg: &Arg) -> String {
    arg.get_long().map(|long| format!("--{long}")).unwrap_or_default()
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

fn sentence(text: &str) -> String {
    let text = text.trim().replace('\n', " ");
    if text.is_empty() || text.ends_with(['.', '!', '?']) { text } else { format!("{text}.") }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
