"""Judges Kubernetes manifests with the tools of the field; tests/deploy asks it.

In: a verb, files, and on stdin JSON. Out: JSON on stdout. It reads files and renders text; no cluster is contacted.

  yaml FILE…                objects of each file
  schemas VERSION…          stdin: objects; what Kubernetes of these versions would refuse
  render CHART              stdin: [{values, name, namespace}]; objects and notes of each, or Helm's error
  lint CHART                stdin: values; Helm's own findings
  policy FILE               stdin: pods; for each the messages with which the policy of FILE refuses it
"""

import functools
import hashlib
import json
import platform
import sys

import yaml

# Of the wheel's native library, by platform.
HELM = {"Linux-x86_64": "9108c3a68d6ed3a394d02543bb4afeeb9f9e2bbcf9fbc228f48ac5576e3bdf83"}


class Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: without dates."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def objects(text):
    return [document for document in yaml.load_all(text, Loader=Loader) if document]


def read(path):
    with open(path, encoding="utf-8") as file:
        return objects(file.read())


def schemas(versions):
    import kubernetes_validate
    from kubernetes_validate import utils

    # The definitions of a version are megabytes, and read anew for each object.
    utils.schema_contents = functools.cache(utils.schema_contents)
    found = []
    for document in json.load(sys.stdin):
        for version in versions:
            name = f"{document.get('kind')}/{document.get('metadata', {}).get('name')} in {version}"
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except Exception as error:  # a kind that this version lacks, or a wrong field
                where = ".".join(str(step) for step in getattr(error, "path", []))
                found.append(f"{name}: {where}: {getattr(error, 'message', error)}")
    return found


def helm():
    import helm_python

    known = HELM.get(f"{platform.system()}-{platform.machine()}")
    with open(helm_python.library_path, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    if known not in (None, digest):
        sys.exit(f"helm-python-sdk's library has the hash {digest}, expected {known}: find out why, then pin it here")
    return helm_python


def render(path):
    engine = helm()
    answers = []
    for case in json.load(sys.stdin):
        try:
            # Helm takes `null` as "leave it out" from the user only, so the chart is read anew for each case.
            files = engine.Chart.load(path).render(
                case["values"], name=case.get("name", "nodewick"), namespace=case.get("namespace", "nodewick")
            )
        except engine.HelmError as error:
            answers.append({"error": str(error)})
            continue
        notes = "".join(text for name, text in files.items() if name.endswith("NOTES.txt"))
        rendered = [text for name, text in files.items() if not name.endswith("NOTES.txt")]
        answers.append({"objects": [o for text in rendered for o in objects(text)], "notes": notes})
    return answers


def policy(path):
    from cel_expr_python import cel

    document = read(path)[0]
    if document["kind"] == "ClusterPolicy":
        rules = document["spec"]["rules"][0]["validate"]["cel"]
        variables, checks = rules["variables"], rules["expressions"]
    else:
        variables, checks = document["spec"]["variables"], document["spec"]["validations"]
    env = cel.NewEnv(variables={"object": cel.Type.DYN, "variables": cel.Type.DYN})
    variables = [(each["name"], env.compile(each["expression"])) for each in variables]
    checks = [(each["message"], env.compile(each["expression"])) for each in checks]
    answers = []
    for pod in json.load(sys.stdin):
        data = {"object": pod, "variables": {}}
        for name, expression in variables:
            data["variables"][name] = expression.eval(data=data).plain_value()
        given = env.Activation(data)
        verdicts = [(message, expression.eval(given).value()) for message, expression in checks]
        answers.append([message if verdict is False else f"{message}: {verdict!r}" for message, verdict in verdicts if verdict is not True])
    return answers


def main(verb, *args):
    if verb == "yaml":
        return [read(path) for path in args]
    if verb == "schemas":
        return schemas(args)
    if verb == "render":
        return render(*args)
    if verb == "lint":
        return helm().lint(args[0], json.load(sys.stdin), strict=True)
    if verb == "policy":
        return policy(*args)
    sys.exit(__doc__)


if __name__ == "__main__":
    json.dump(main(*sys.argv[1:]), sys.stdout)
