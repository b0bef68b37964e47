"""Compares what checkov finds in template.yaml with the findings that are accepted, each with its reason.

    security.py REPORT ACCEPTED

REPORT is checkov's JSON, ACCEPTED the file that says what stays. Both ways: nothing new, and nothing that is excused without need.
"""

import fnmatch
import json
import sys


def accepted(path):
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip() and not line.startswith("#"):
                rule, resource, *reason = line.split()
                if len(reason) < 4:
                    sys.exit(f"{path}:{number}: {rule} {resource} is accepted without a reason")
                yield rule, resource


def main():
    report, path = sys.argv[1:]
    with open(report, encoding="utf-8") as file:
        document = json.load(file)
    if document["summary"]["parsing_errors"] or document["summary"]["passed"] < 30:
        sys.exit(f"checkov did not read the template: {document['summary']}")
    found = sorted(
        {(check["check_id"], check["resource"].split(".")[-1], check["check_name"]) for check in document["results"]["failed_checks"]}
    )
    excuses = list(accepted(path))
    excused = lambda rule, name, excuse: excuse[0] == rule and fnmatch.fnmatchcase(name, excuse[1])
    new = [finding for finding in found if not any(excused(*finding[:2], excuse) for excuse in excuses)]
    stale = [excuse for excuse in excuses if not any(excused(*finding[:2], excuse) for finding in found)]
    for rule, name, text in new:
        print(f"{rule} {name}: {text}")
    for rule, name in stale:
        print(f"{rule} {name} is accepted in {path}, but is found no more: remove the line")
    if new or stale:
        sys.exit(1)
    print(f"{document['summary']['passed']} checks passed, {len(found)} findings, each accepted with its reason in {path}")


main()
