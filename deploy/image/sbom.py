#!/usr/bin/env python3
"""The software bill of materials of the image, CycloneDX 1.5 as JSON.

In: a Rust target, `cargo metadata` and Cargo.lock. Out, on stdout: every crate that is compiled into the binary or runs to
build it, with licence, package URL, the hash that Cargo.lock pins, and who depends on whom. The same sources give the
same text.
"""

import json
import re
import subprocess
import sys
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def checksums():
    """SHA-256 of each crate's archive by name and version, as Cargo.lock has it."""
    found = {}
    for package in (ROOT / "Cargo.lock").read_text(encoding="utf-8").split("[[package]]")[1:]:
        keys = dict(re.findall(r'^(name|version|checksum) = "([^"]*)"$', package, re.M))
        if "checksum" in keys:
            found[keys["name"], keys["version"]] = keys["checksum"]
    return found


def metadata(target):
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)


def reached(nodes, root, kinds, without=frozenset()):
    """Packages that the root reaches over dependencies of these kinds, and not through those of `without`."""
    seen, open_ = {root}, [root]
    while open_:
        for dependency in nodes[open_.pop()]["deps"]:
            if dependency["pkg"] in seen | without:
                continue
            if kinds & {kind["kind"] for kind in dependency["dep_kinds"]}:
                seen.add(dependency["pkg"])
                open_.append(dependency["pkg"])
    return seen


def main(target="x86_64-unknown-linux-musl"):
    tree = metadata(target)
    nodes = {node["id"]: node for node in tree["resolve"]["nodes"]}
    packages = {package["id"]: package for package in tree["packages"]}
    root = tree["resolve"]["root"]
    macros = {id for id, package in packages.items() if any("proc-macro" in t["kind"] for t in package["targets"])}
    compiled, all_ = reached(nodes, root, {None}, macros), reached(nodes, root, {None, "build"})
    hashes = checksums()

    def purl(package):
        return f"pkg:cargo/{package['name']}@{package['version']}"

    def component(package):
        entry = {
            "type": "application" if package["id"] == root else "library",
            "bom-ref": purl(package),
            "name": package["name"],
            "version": package["version"],
            "description": " ".join((package["description"] or "").split()),
            # Procedural macros and what builds C code run on the builder and do not ship.
            "scope": "required" if package["id"] in compiled else "excluded",
            "purl": purl(package),
        }
        if package["license"]:
            # `MIT/Apache-2.0` is how crates wrote it before SPDX.
            entry["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
        digest = hashes.get((package["name"], package["version"]))
        if digest:
            entry["hashes"] = [{"alg": "SHA-256", "content": digest}]
        if package["repository"]:
            entry["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
        return entry

    order = sorted(all_, key=lambda id: (packages[id]["name"], packages[id]["version"]))
    components = [component(packages[id]) for id in order]
    itself = next(entry for entry in components if entry["type"] == "application")
    components.remove(itself)
    del itself["scope"]
    dependencies = [
        {
            "ref": purl(packages[id]),
            "dependsOn": sorted({purl(packages[d["pkg"]]) for d in nodes[id]["deps"] if d["pkg"] in all_}),
        }
        for id in order
    ]
    # From the content, so that the same sources give the same serial number.
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([target, itself, components], sort_keys=True))
    bom = {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"component": itself, "properties": [{"name": "cdx:rustc:sbom:target:triple", "value": target}]},
        "components": components,
        "dependencies": dependencies,
    }
    json.dump(bom, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main(*sys.argv[1:])
