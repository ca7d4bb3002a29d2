#!/usr/bin/env python3
"""The benchmark of the metrics path: targets that serve a kubelet's page, scraped and passed on by remote write.

Usage: scrape.py [--quick] [--agent PATH] [--targets N] [--secs N] [--warm N] [--gzip] [--hang] [--only steady,fast,idle]

It starts `targets` and `sink` on loopback, and the agent between them; what the agent cost is read from /proc. Three parts:
steady scrapes every 15 s, fast every 3 s, so that what a sample costs and what the agent costs by itself come apart, and
idle has neither targets nor sinks of samples. Goals: docs/how-to/benchmark.md. Needs nothing but Python 3.9 and, unless
--agent is given, cargo. Exit status 1 when a sample was lost, came twice or out of order.
"""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import time
import urllib.request

import run
from run import ROOT, TARGET, TOOLS, say

PAGE = ROOT / "tests" / "corpus" / "metrics" / "kubelet.prom"
# `up` and its company: what the agent adds to a page.
OWN = 5
PARTS = {"steady": 15, "fast": 3, "idle": None}


def main():
    options = arguments()
    work = TARGET / "bench" / "scratch-metrics"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    agent = run.build(options.agent)
    samples = sum(1 for line in PAGE.read_text().splitlines() if line and not line.startswith("#")) + OWN
    rows = []
    try:
        for part in options.only:
            row = idle(agent, work, options) if part == "idle" else scrape(part, agent, work, samples, options)
            say(json.dumps(row))
            rows.append(row)
    finally:
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)
    results = TARGET / "bench" / "results-metrics.json"
    results.write_text(json.dumps({"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "rows": rows}, indent=1))
    report(rows)
    say(f"\nfull figures: {results}")
    return 1 if any(row.get("lost") or row.get("duplicates") or row.get("out_of_order") for row in rows) else 0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 seconds each: a look, not a measurement")
    parser.add_argument("--agent", type=pathlib.Path, help="a built nodewick; default: build one with --release")
    parser.add_argument("--only", default="steady,fast,idle", type=lambda text: text.split(","))
    parser.add_argument("--targets", type=int, default=100)
    parser.add_argument("--warm", type=int, help="seconds before measuring; default 120")
    parser.add_argument("--secs", type=int, help="seconds of measuring; default 180")
    parser.add_argument("--gzip", action="store_true", help="targets compress for whoever asks for it")
    parser.add_argument("--hang", action="store_true", help="one more target, which never answers")
    parser.add_argument("--keep", action="store_true", help="keep the agent's own output")
    options = parser.parse_args()
    if unknown := set(options.only) - set(PARTS):
        parser.error(f"--only: unknown part {', '.join(sorted(unknown))}")
    options.warm = options.warm or (20 if options.quick else 120)
    options.secs = options.secs or (20 if options.quick else 180)
    return options


class Targets:
    """The scraped side, ended by its id on the way out."""

    def __init__(self, interval, options):
        self.command = [TOOLS / "targets", "--page", PAGE, "--interval-ms", str(interval * 1000)]
        self.command += ["--gzip", "1"] if options.gzip else []

    def __enter__(self):
        self.process = subprocess.Popen([str(part) for part in self.command], stdout=subprocess.PIPE, text=True)
        self.address = self.process.stdout.readline().strip()
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def ask(self, path, method="GET"):
        request = urllib.request.Request(f"http://{self.address}{path}", method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


def nodewick(agent, further):
    def command(work, address):
        state, logs = work / "state", work / "logs"
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir()
        logs.mkdir(exist_ok=True)
        lines = [
            "[agent]", 'cluster = "bench"', 'node = "bench-node"', f"state_dir = {json.dumps(str(state))}",
            "[logs]", f"root = {json.dumps(str(logs))}",
            "[kube]", 'mode = "path"',
            "[admin]", f'listen = "127.0.0.1:{run.free_port()}"',
            "[ui]", 'listen = "off"',
            *further(address),
        ]
        config = work / "agent.toml"
        config.write_text("\n".join(lines) + "\n")
        return [agent, "run", "-c", config]

    return command


def scrape(part, agent, work, samples, options):
    interval = PARTS[part]
    with Targets(interval, options) as targets:
        urls = [f"http://{targets.address}/{number:03}" for number in range(options.targets)]
        urls += [f"http://{targets.address}/hang"] if options.hang else []

        def further(address):
            # Targets that differ by their path alone need a label to differ by.
            lines = ["[scrape]", f'interval = "{interval}s"']
            for number, url in enumerate(urls):
                lines += ["[[scrape.static]]", f'targets = ["{url}"]', "[scrape.static.labels]", f'page = "{number:03}"']
            return [*lines, "[sink.remote_write.main]", f'url = "http://{address}/api/v1/write"']

        with run.Run(f"{part}: {options.targets} targets every {interval} s", nodewick(agent, further), work) as agent:
            time.sleep(options.warm)
            targets.ask("/reset", "POST")
            began_with = agent.stats()
            cpu, began = agent.cpu(), time.monotonic()
            time.sleep(options.secs)
            used, passed = agent.cpu() - cpu, time.monotonic() - began
            rss, peak = agent.memory("VmRSS"), agent.memory("VmHWM")
            asked, stats = targets.ask("/stats"), agent.stats()
            # On the way out the agent sends what waits: then all that was ever scraped has come.
            agent.agent.terminate()
            agent.agent.wait(30)
            told = targets.ask("/stats")
            # Of a target that hangs there is what the agent says of it.
            expected = told["total"] * samples + told["hanging"] * OWN
            missing = expected - agent.ask("/stats")["samples"]
    # A scrape that the end cuts off is nobody's loss, whether it was answered or hung.
    lost = 0 if missing in (samples, OWN, samples + OWN) else missing
    scrapes = asked["requests"]
    came = stats["samples"] - began_with["samples"]
    return {
        "part": part, "cpu_percent": round(used / passed * 100, 3), "ns_per_sample": round(used / max(came, 1) * 1e9),
        "rss_mib": rss, "peak_mib": peak, "scrapes": scrapes, "samples": came,
        "bytes_per_sample": round((stats["bytes"] - began_with["bytes"]) / max(came, 1), 1),
        "series": stats["series"], "lost": lost,
        "duplicates": stats["duplicates"], "out_of_order": stats["out_of_order"],
        "connections": asked["connections"], "jitter_p99_ms": asked["jitter_p99_ms"],
        "jitter_max_ms": asked["jitter_max_ms"],
    }


def idle(agent, work, options):
    with run.Run("idle: no targets, no sinks of samples", nodewick(agent, loki), work) as agent:
        time.sleep(min(options.warm, 30))
        cpu, began = nanos(agent), time.monotonic()
        time.sleep(min(options.secs, 60))
        used, passed = (nanos(agent) - cpu) / 1e9, time.monotonic() - began
        return {
            "part": "idle", "cpu_percent": round(used / passed * 100, 4), "rss_mib": agent.memory("VmRSS"),
            "peak_mib": agent.memory("VmHWM"),
        }


def nanos(agent):
    """CPU time of all threads that live: finer than the hundredths of a second that /proc/PID/stat has."""
    threads = pathlib.Path(f"/proc/{agent.agent.pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads)


def loki(address):
    return ["[sink.loki.main]", f'url = "http://{address}"']


def report(rows):
    columns = [
        ("% of a core", "cpu_percent"), ("ns/sample", "ns_per_sample"), ("RSS MiB", "rss_mib"), ("peak MiB", "peak_mib"),
        ("samples", "samples"), ("B/sample", "bytes_per_sample"), ("lost", "lost"), ("dup", "duplicates"),
        ("order", "out_of_order"), ("jitter p99 ms", "jitter_p99_ms"), ("max ms", "jitter_max_ms"),
    ]
    run.table([["metrics", *(head for head, _ in columns)]]
              + [[row["part"], *(str(row.get(key, "")) for _, key in columns)] for row in rows])


if __name__ == "__main__":
    sys.exit(main())
