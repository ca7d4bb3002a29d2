#!/usr/bin/env python3
"""Runs the fault suite at the standard load, row after row, and renders docs/reference/scoreboard.md.

    make soak                      every row
    make soak ROWS="1 3 16"        these rows; the others keep the record of their last run
    tests/faults/soak.py --render  only the table, from the records in target/faults/soak

NODEWICK_SOAK_SECONDS is the load's time per row (60). The exit status is that of the rows.
"""
import datetime
import json
import os
import pathlib
import platform
import re
import signal
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
RECORDS = TARGET / "faults" / "soak"
BOARD = ROOT / "docs" / "reference" / "scoreboard.md"
# Seconds after which a row is given up.
LONGEST = 900
CARGO = ["cargo", "test", "--release", "--locked", "--quiet", "--test", "faults", "--"]


def main(arguments):
    failed = []
    if arguments != ["--render"]:
        failed = run({int(row) for row in arguments})
    records = sorted((json.loads(path.read_text()) for path in RECORDS.glob("row-*.json")),
                     key=lambda record: (record["row"], record["part"]))
    table = board(records)
    BOARD.write_text(table)
    print(table)
    if failed:
        print("failed: " + " ".join(failed), file=sys.stderr)
    return 1 if failed else 0


def run(rows):
    """Runs the rows, all when there are none; the names of those that failed."""
    listed = subprocess.run([*CARGO, "--list"], cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE).stdout
    tests = [name for name in re.findall(r"^(\S+): test$", listed, re.M) if re.search(r"::row_\d\d_", name)]
    number = lambda name: int(re.search(r"::row_(\d\d)_", name)[1])
    tests = sorted((name for name in tests if not rows or number(name) in rows), key=number)
    unknown = rows - {number(name) for name in tests}
    if unknown:
        sys.exit(f"no test for row {' '.join(map(str, sorted(unknown)))}")
    failed, environment = [], {**os.environ, "NODEWICK_SOAK": "1"}
    for name in tests:
        print(f"{datetime.datetime.now():%H:%M:%S} {name.split('::')[-1]}", file=sys.stderr, flush=True)
        row = subprocess.Popen([*CARGO, "--exact", "--nocapture", "--test-threads=1", name], cwd=ROOT,
                               env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            said, _ = row.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            os.killpg(row.pid, signal.SIGKILL)
            said = f"ended after {LONGEST} s\n"
            RECORDS.mkdir(parents=True, exist_ok=True)
            record = {"row": number(name), "part": "", "title": name.split("::")[-1], "injected": "",
                      "verdict": "fail", "note": f"not at its end after {LONGEST} s", "seconds": LONGEST}
            (RECORDS / f"row-{number(name):02}.json").write_text(json.dumps(record))
        if row.returncode != 0:
            failed.append(name.split("::")[-1])
            print("\n".join(said.splitlines()[-60:]), file=sys.stderr, flush=True)
    return failed


def board(records):
    command = "make soak"
    seconds = os.environ.get("NODEWICK_SOAK_SECONDS")
    if seconds:
        command = f"NODEWICK_SOAK_SECONDS={seconds} {command}"
    verdicts = [record["verdict"] for record in records]
    counts = ", ".join(f"{verdicts.count(word)} {word}" for word in ("pass", "fail", "pending", "skipped")
                       if word in verdicts)
    lines = [
        "# Scoreboard of the fault suite",
        "",
        "Rendered by the soak; do not edit. What is injected and what counts as a pass is in",
        "[faults](../explanation/faults.md).",
        "",
        f"- Command: `{command}`",
        f"- Date: {datetime.date.today().isoformat()}",
        f"- Machine: {machine()}",
        f"- Verdicts: {counts or 'none'}",
        "- A row that is missing here has not been run at this load; all run in CI at a smaller scale.",
        "",
        "| row | injected | lines | lost | duplicated | after dedup | corrupt | misattributed | reordered "
        "| peak RSS | recovery | verdict | note |",
        "|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|---|",
    ]
    for record in records:
        figure = lambda key, text="{:,}": text.format(record[key]) if key in record else "–"
        cell = lambda text: " ".join(str(text).replace("|", "\\|").split())
        part = f" ({record['part']})" if record["part"] else ""
        lines.append("| " + " | ".join([
            f"{record['row']}{part}", cell(f"**{record['title']}**: {record['injected']}"), figure("lines"),
            figure("lost"), figure("duplicated"), figure("after_dedup"), figure("corrupt"),
            figure("misattributed"), figure("reordered"), figure("peak_rss_mib", "{:.0f} MiB"),
            figure("recovery_s", "{:.1f} s"), record["verdict"], cell(record["note"]),
        ]) + " |")
    return "\n".join(lines) + "\n"


def machine():
    def read(path, pattern):
        try:
            found = re.search(pattern, pathlib.Path(path).read_text(), re.M)
        except OSError:
            return None
        return found and found[1].strip()
    cpu = read("/proc/cpuinfo", r"^model name\s*: (.*)$") or platform.machine()
    memory = int(read("/proc/meminfo", r"^MemTotal:\s*(\d+)") or 0) / 2**20
    return f"{os.cpu_count()} × {cpu}, {memory:.0f} GiB, Linux {platform.release()}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
