#!/usr/bin/env python3
"""A bounded run of the fuzz targets: builds once, then runs each for a while from its seeds and what earlier runs have found.

Usage: run.py [--seconds N] [TARGET ...]

Seeds are fuzz/seeds/TARGET and those that are derived from tests/corpus; what libFuzzer finds beyond them is kept below target/fuzz.
Prints executions, coverage and crashes a target. Exit status 1 when an input broke a property, with its path and the command that
replays it. Needs cargo and a C++ compiler, nothing else.
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys

FUZZ = pathlib.Path(__file__).resolve().parent
ROOT = FUZZ.parent
WORK = ROOT / "target" / "fuzz"
# Longest input. Longer ones slow every run down and find little more: formats repeat.
MAX_LEN = 4096
# A single input that takes longer hangs; one that holds more memory has no limit.
SLOWEST_SECONDS = 10
MEMORY_MIB = 1024


def main():
    options = arguments()
    binary = build()
    known = sorted(path.stem for path in (FUZZ / "targets").glob("*.rs") if path.stem not in ("mod", "seeds"))
    unknown = [target for target in options.targets if target not in known]
    if unknown:
        sys.exit(f"no such target: {' '.join(unknown)}; there are {' '.join(known)}")
    targets = options.targets or known
    print(f"{'target':<12}{'executions':>12}{'per second':>12}{'coverage':>10}{'features':>10}{'corpus':>8}  result", flush=True)
    broken = [crash for target in targets for crash in run(binary, target, options.seconds)]
    for target, path in broken:
        shown = path.relative_to(ROOT)
        print(f"\n{target}: {shown} breaks a property")
        print(f"  see it:  NODEWICK_FUZZ={target} {binary.relative_to(ROOT)} {shown}")
        print(f"  keep it: cp {shown} fuzz/seeds/{target}/<what broke>, then cargo test --test fuzz_seeds")
    sys.exit(1 if broken else 0)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=50, help="for each target (default 50)")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="default: all")
    return parser.parse_args()


def build():
    """Builds with the flags of fuzz/.cargo/config.toml, which cargo reads from the directory that it runs in."""
    command = ["cargo", "build", "--quiet", "--locked"]
    if subprocess.run(command, cwd=FUZZ, stdin=subprocess.DEVNULL).returncode != 0:
        sys.exit("the fuzz targets do not build")
    # Named for the host, whatever it is.
    binaries = list((WORK / "build").glob("*/debug/nodewick-fuzz"))
    if len(binaries) != 1:
        sys.exit(f"expected one binary below {WORK / 'build'}, found {len(binaries)}")
    return binaries[0]


def run(binary, target, seconds):
    """Runs a target and prints its row; its new crashes."""
    corpus, seeds, crashes = (WORK / kind / target for kind in ("corpus", "seeds", "crashes"))
    for directory in (corpus, seeds, crashes):
        directory.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "NODEWICK_FUZZ": target}
    subprocess.run([binary], env={**environment, "NODEWICK_FUZZ_SEEDS": str(seeds)}, check=True)
    before = set(crashes.iterdir())
    command = [
        binary,
        f"-max_total_time={seconds}",
        f"-max_len={MAX_LEN}",
        f"-timeout={SLOWEST_SECONDS}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-artifact_prefix={crashes}/",
        "-print_final_stats=1",
        "-verbosity=1",
        corpus,
        seeds,
        FUZZ / "seeds" / target,
    ]
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    output = done.stdout + done.stderr
    (WORK / f"{target}.log").write_text(output)
    found = sorted(set(crashes.iterdir()) - before)
    progress = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", output)
    coverage, features, size = progress[-1] if progress else ("-", "-", "-")
    executions = figure(output, "number_of_executed_units")
    rate = figure(output, "average_exec_per_sec")
    result = "ok" if done.returncode == 0 else f"CRASH, see {(WORK / f'{target}.log').relative_to(ROOT)}"
    print(f"{target:<12}{executions:>12}{rate:>12}{coverage:>10}{features:>10}{size:>8}  {result}", flush=True)
    if done.returncode != 0 and not found:
        print(output[-2000:], file=sys.stderr)
        sys.exit(f"{target} ended with status {done.returncode} and left no input")
    return [(target, path) for path in found]


def figure(output, name):
    found = re.search(rf"stat::{name}:\s*(\d+)", output)
    return found[1] if found else "-"


if __name__ == "__main__":
    main()
