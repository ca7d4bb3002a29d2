#!/usr/bin/env python3
"""The benchmark of the log path: nodewick beside the floor, in one run, on this machine.

Usage: run.py [--quick] [--agent PATH] [--only drain,steady,idle] [--lines N] [--secs N] [--keep]
       run.py scrape [...]: that of the metrics path, scrape.py

It writes container logs with `loggen`, starts the agent against `sink` on loopback, and reads what the agent cost from
/proc. Absolute CPU seconds depend on the machine; the ratio to the floor hardly does. Goals: docs/how-to/benchmark.md.
Needs nothing but Python 3.9 and, unless --agent is given, cargo. Exit status 1 when a line was lost or came twice.
"""
import argparse
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
TOOLS = TARGET / "bench" / "release"
TICKS = os.sysconf("SC_CLK_TCK")

SHORT_RECORD = ["level", "trace_id", "span_id"]


def main():
    if sys.argv[1:2] == ["scrape"]:
        script = pathlib.Path(__file__).resolve().parent / "scrape.py"
        os.execv(sys.executable, [sys.executable, str(script), *sys.argv[2:]])
    options = arguments()
    work = TARGET / "bench" / "scratch"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    agent = build(options.agent)
    rows = []
    try:
        if "drain" in options.only:
            pods = work / "drain"
            say(f"writing {options.lines:,} lines")
            expected = loggen("backlog", pods, "--files", "50", "--lines", str(options.lines))["lines"]
            rows.append(drain("floor", floor(pods), work, expected))
            for name, record in (("nodewick, three fields", SHORT_RECORD), ("nodewick, default record", None)):
                rows.append(drain(name, nodewick(agent, pods, record), work, expected))
            rows.append(drain("floor again", floor(pods), work, expected))
            shutil.rmtree(pods)
        if "steady" in options.only:
            for name, start in (("floor", floor), ("nodewick, default record", lambda pods: nodewick(agent, pods))):
                pods = work / "steady"
                rows.append(steady(name, start(pods), work, pods, 10_000, options.secs))
                shutil.rmtree(pods)
        if "idle" in options.only:
            pods = work / "idle"
            lines = loggen("idle", pods, "--files", "100")["lines"]
            for name, start in (("floor", floor), ("nodewick, default record", lambda pods: nodewick(agent, pods))):
                rows.append(idle(name, start(pods), work, lines, options.secs))
    finally:
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)
    results = TARGET / "bench" / "results.json"
    results.write_text(json.dumps({"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "rows": rows}, indent=1))
    report(rows)
    say(f"\nfull figures: {results}")
    bad = [row for row in rows if row["lost"] or row["duplicates"] or row["wrong"] or row["out_of_order"]]
    return 1 if bad else 0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="150,000 lines and 10 seconds: a look, not a measurement")
    parser.add_argument("--agent", type=pathlib.Path, help="a built nodewick; default: build one with --release")
    parser.add_argument("--only", default="drain,steady,idle", type=lambda text: text.split(","))
    parser.add_argument("--lines", type=int)
    parser.add_argument("--secs", type=int)
    parser.add_argument("--keep", action="store_true", help="keep the logs and the agent's own output")
    options = parser.parse_args()
    if unknown := set(options.only) - {"drain", "steady", "idle"}:
        parser.error(f"--only: unknown part {', '.join(sorted(unknown))}")
    options.lines = options.lines or (150_000 if options.quick else 1_500_000)
    options.secs = options.secs or (10 if options.quick else 60)
    return options


def say(text):
    print(text, file=sys.stderr, flush=True)


# Programs


def build(agent):
    cargo = ["cargo", "build", "--release", "--locked", "--quiet"]
    say("building the benchmark's tools")
    manifest = ROOT / "benches" / "logbench" / "Cargo.toml"
    subprocess.run([*cargo, "--manifest-path", manifest, "--target-dir", TARGET / "bench"], check=True)
    if agent is None:
        say("building nodewick --release (minutes, the first time)")
        subprocess.run([*cargo, "--bin", "nodewick"], cwd=ROOT, check=True)
        agent = TARGET / "release" / "nodewick"
    return agent.resolve(strict=True)


def loggen(mode, pods, *options):
    command = [TOOLS / "loggen", mode, "--dir", pods, *options]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def floor(pods):
    return lambda work, address: [TOOLS / "floor", pods, address]


def nodewick(agent, pods, record=None):
    def command(work, address):
        state = work / "state"
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir()
        lines = [
            "[agent]", 'cluster = "bench"', 'node = "bench-node"', f"state_dir = {json.dumps(str(state))}",
            "[logs]", f"root = {json.dumps(str(pods))}",
            "[sink.loki.main]", f'url = "http://{address}"', 'tenant = "bench"',
            "[admin]", f'listen = "127.0.0.1:{free_port()}"',
            "[ui]", 'listen = "off"',
        ]
        if record is not None:
            lines += ["[record]", f"fields = {json.dumps(record)}"]
        config = work / "agent.toml"
        config.write_text("\n".join(lines) + "\n")
        return [agent, "run", "-c", config]

    return command


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Run:
    """A sink and an agent, both ended by their id on the way out."""

    def __init__(self, name, command, work):
        self.name, self.command, self.work = name, command, work

    def __enter__(self):
        say(f"{self.name} …")
        self.sink = subprocess.Popen([TOOLS / "sink"], stdout=subprocess.PIPE, text=True)
        self.address = self.sink.stdout.readline().strip()
        log = self.work / "agent.log"
        with open(log, "ab") as output:
            self.started = time.monotonic()
            command = [str(part) for part in self.command(self.work, self.address)]
            self.agent = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        return self

    def __exit__(self, *_):
        # The floor knows no end; the agent is given its drain time.
        self.agent.send_signal(signal.SIGTERM)
        try:
            self.agent.wait(30)
        except subprocess.TimeoutExpired:
            self.agent.kill()
            self.agent.wait()
        self.sink.kill()
        self.sink.wait()

    def alive(self):
        if (status := self.agent.poll()) is not None:
            tail = (self.work / "agent.log").read_text(errors="replace")[-2000:]
            sys.exit(f"{self.name} ended by itself with status {status}:\n{tail}")

    def ask(self, path, method="GET"):
        request = urllib.request.Request(f"http://{self.address}{path}", method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def stats(self):
        self.alive()
        return self.ask("/stats")

    def cpu(self):
        """User and system seconds of all threads."""
        fields = pathlib.Path(f"/proc/{self.agent.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self, key):
        """VmRSS or VmHWM in MiB."""
        for line in pathlib.Path(f"/proc/{self.agent.pid}/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return round(int(line.split()[1]) / 1024, 1)
        return 0.0

    def wait_for(self, lines, stall=30.0):
        """Waits until the sink has `lines` lines, or has had no new one for `stall` seconds."""
        last, since = -1, time.monotonic()
        while True:
            stats = self.stats()
            if stats["lines"] != last:
                last, since = stats["lines"], time.monotonic()
            if last >= lines or time.monotonic() - since > stall:
                return stats
            time.sleep(0.1)


def verdict(expected, stats):
    keys = ("duplicates", "out_of_order", "wrong", "strange", "undecoded", "requests", "bytes")
    untraced = stats["lines"] - stats["traced"]
    return {"lines": expected, "lost": expected - stats["lines"], "untraced": untraced, **{k: stats[k] for k in keys}}


# The three parts


def drain(name, command, work, expected):
    with Run(name, command, work) as run:
        stats = run.wait_for(expected)
        seconds, cpu, peak = time.monotonic() - run.started, run.cpu(), run.memory("VmHWM")
        time.sleep(1.5)  # a late duplicate still counts
        stats = run.stats()
    return {
        "part": "drain", "name": name, "cpu_s_per_m": round(cpu / expected * 1e6, 3), "seconds": round(seconds, 2),
        "peak_mib": peak, **verdict(expected, stats),
    }


def steady(name, command, work, pods, rate, secs):
    first = loggen("idle", pods, "--files", "50")["lines"]
    with Run(name, command, work) as run:
        run.wait_for(first)
        time.sleep(5)
        run.ask("/reset", "POST")
        cpu, began = run.cpu(), time.monotonic()
        written = loggen("steady", pods, "--files", "50", "--rate", str(rate), "--secs", str(secs), "--start", "10")
        used, passed = run.cpu() - cpu, time.monotonic() - began
        rss, peak = run.memory("VmRSS"), run.memory("VmHWM")
        stats = run.wait_for(written["lines"], stall=15)
        latency = run.ask("/latency")
    return {
        "part": "steady", "name": name, "cpu_percent": round(used / passed * 100, 2), "rss_mib": rss, "peak_mib": peak,
        **latency, **verdict(written["lines"], stats),
    }


def idle(name, command, work, lines, secs):
    with Run(name, command, work) as run:
        run.wait_for(lines)
        time.sleep(10)
        cpu, began = run.cpu(), time.monotonic()
        time.sleep(secs)
        used, passed = run.cpu() - cpu, time.monotonic() - began
        rss, stats = run.memory("VmRSS"), run.stats()
    return {
        "part": "idle", "name": name, "cpu_percent": round(used / passed * 100, 3), "rss_mib": rss,
        **verdict(lines, stats),
    }


# The table


def report(rows):
    floors = [row["cpu_s_per_m"] for row in rows if row["part"] == "drain" and row["name"].startswith("floor")]
    base = sum(floors) / len(floors) if floors else None
    columns = {
        "drain": (
            "CPU-s/M lines|× floor|peak MiB|seconds|lost|dup|order|wrong|B/line",
            lambda row: [
                f"{row['cpu_s_per_m']:.2f}", f"{row['cpu_s_per_m'] / base:.2f}", row["peak_mib"], row["seconds"],
                row["lost"], row["duplicates"], row["out_of_order"], row["wrong"], round(row["bytes"] / row["lines"]),
            ],
        ),
        "steady": (
            "% of a core|RSS MiB|peak MiB|p50 ms|p99 ms|max ms|lost|dup|order|wrong",
            lambda row: [
                row["cpu_percent"], row["rss_mib"], row["peak_mib"], row["p50_ms"], row["p99_ms"], row["max_ms"],
                row["lost"], row["duplicates"], row["out_of_order"], row["wrong"],
            ],
        ),
        "idle": (
            "% of a core|RSS MiB|lost|dup",
            lambda row: [row["cpu_percent"], row["rss_mib"], row["lost"], row["duplicates"]],
        ),
    }
    for part, (head, cells) in columns.items():
        lines = [[row["name"], *map(str, cells(row))] for row in rows if row["part"] == part]
        if lines:
            table([[part, *head.split("|")], *lines])


def table(lines):
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    print()
    for number, line in enumerate(lines):
        print("| " + " | ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) + " |")
        if number == 0:
            print("|" + "|".join(["-" * (widths[0] + 2), *["-" * (w + 1) + ":" for w in widths[1:]]]) + "|")


if __name__ == "__main__":
    sys.exit(main())
