"""What a suite's tests came to, a line each: the result, a tab, the test's name; of one that failed, a tab, and why.

    results.py regress TOLD SAID        pg_regress and pg_isolation_regress
    results.py redis|junit|mocha FILE   Redis' runtest, pytest, mocha
    results.py why FILE                 of anything else: why it failed

Why is one of: `connection` (its connection ended, or was refused), `left over` (it found what a test had left behind that
could not end), or `other`.
"""

import json
import os
import re
import sys
import xml.etree.ElementTree

# What clients say when a connection ends, or when a stamp or a guard refuses something.
CONNECTION = re.compile(
    r"57P0[123]|READONLY|LOADING|EXECABORT|not_leader|stale_epoch|term_changed|fenced_in_flight"
    r"|This writer does not lead|The write is of an epoch that is over"
    r"|server closed the connection|terminating connection|connection to server|I/O error|[Bb]roken pipe"
    r"|[Cc]onnection.{0,30}(closed|reset|refused|lost|terminated|failed|ended)|closed the connection|ECONNRE"
)


LEFT_OVER = re.compile(r'setup failed: ERROR: +\w+ "[^"]*" already exists|BUSY Redis is busy|no such variable')


def why(text):
    return "connection" if CONNECTION.search(text) else "left over" if LEFT_OVER.search(text) else "other"


def read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def regress(told, said):
    """pg_regress says `test NAME ... ok`; in a group of parallel tests the name stands alone."""
    found = re.findall(r"^(?:test |\s+)(\S+)\s+\.\.\. (ok|FAILED|failed \(ignored\))", read(told), re.MULTILINE)
    if not found:
        yield "failed", "(the suite itself)", why(read(told))
    for name, result in found:
        output = os.path.join(said, "results", name + ".out")
        if result == "ok":
            yield "passed", name
        else:
            yield "failed", name, why(read(output) if os.path.exists(output) else "")


def redis(path):
    results = {"ok": "passed", "ignore": "skipped", "skip": "skipped"}
    lines = re.sub(r"\x1b\[[0-9;]*m", "", read(path)).splitlines()
    for at, line in enumerate(lines):
        found = re.match(r"\[(ok|err|exception|ignore|skip|timeout)\]: (.*)", line)
        if not found:
            continue
        result, name = results.get(found[1], "failed"), re.sub(r" \(\d+ ms\)$| in tests/\S+\.tcl$", "", found[2])
        if result == "failed":
            # What ends a whole file has no name but its error.
            unnamed = found[1] == "exception" or name.startswith(("replication_stream error", "I/O error"))
            yield result, "(the rest of a file)" if unnamed else name, why("\n".join(lines[at : at + 8]))
        else:
            yield result, name


def junit(path):
    for case in xml.etree.ElementTree.parse(path).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        bad = [child for child in case if child.tag in ("failure", "error")]
        if bad:
            yield "failed", name, why("".join(child.get("message", "") + (child.text or "") for child in bad))
        else:
            yield "skipped" if case.find("skipped") is not None else "passed", name


def mocha(path):
    told = json.loads(read(path))
    for result, key in (("passed", "passes"), ("failed", "failures"), ("skipped", "pending")):
        for test in told[key]:
            yield (result, test["fullTitle"], why(json.dumps(test["err"]))) if result == "failed" else (result, test["fullTitle"])


def main():
    kind, *paths = sys.argv[1:]
    if kind == "why":
        print(why(read(*paths)))
        return
    for line in {"regress": regress, "redis": redis, "junit": junit, "mocha": mocha}[kind](*paths):
        print("\t".join(" ".join(part.split()) for part in line))


main()
