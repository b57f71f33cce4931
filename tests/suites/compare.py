"""The ways of one suite beside each other: a row of the table for each, and below it every test that differs.

    compare.py OUT SUITE…

OUT has SUITE.WAY.results. Tests with the same name are told apart by their place; what they said (SUITE.WAY.said) is
compared too, where the suite keeps it. Exits 1 where a test went otherwise through stamp and guard, or failed over
failovers for another reason than its connection, and known.txt does not say why.
"""

import collections
import filecmp
import os
import re
import sys


def load(out, suite, way):
    """The results by test, or None where that way was not run."""
    path = os.path.join(out, f"{suite}.{way}.results")
    if not os.path.exists(path):
        return None
    seen, tests = collections.Counter(), {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            result, name, *why = line.rstrip("\n").split("\t")
            seen[name] += 1
            tests[name if seen[name] == 1 else f"{name} ({seen[name]})"] = (result, *why)
    return tests


def known():
    """What known.txt explains: the suite, a pattern of the test's name, why."""
    with open(os.path.join(os.path.dirname(__file__), "known.txt"), encoding="utf-8") as file:
        lines = [line.rstrip("\n") for line in file if line.strip() and not line.startswith("#")]
    return [line.split(" | ") for line in lines]


def counted(tests):
    counts = collections.Counter(result for result, *_ in tests.values())
    return ", ".join(f"{counts[result]} {result}" for result in ("passed", "failed", "skipped") if counts[result])


def said_otherwise(out, suite):
    """Tests whose output is not the same, to the byte, both ways."""
    folders = [os.path.join(out, f"{suite}.{way}.said", "1", "results") for way in ("direct", "through")]
    if not all(map(os.path.isdir, folders)):
        return []
    names = sorted(name for name in os.listdir(folders[0]) if name.endswith(".out"))
    same, other, missing = filecmp.cmpfiles(*folders, names, shallow=False)
    return other + missing


def differences(out, suite, direct, through, failovers):
    """Each as a test's name, and what is different."""
    if direct is not None and through is not None:
        for name in sorted(direct.keys() | through.keys()):
            ways = [tests.get(name, ("missing",))[0] for tests in (direct, through)]
            if ways[0] != ways[1]:
                yield name, f"{ways[0]} direct, {ways[1]} through"
        for name in said_otherwise(out, suite):
            yield name.removesuffix(".out"), "what it said is not the same"
    for name, (result, *why) in (failovers or {}).items():
        # The same test of a later round has a number.
        before = (direct or {}).get(re.sub(r" \(\d+\)$", "", name), ("passed",))
        if result == "failed" and why == ["other"] and before[0] != "failed":
            yield name, "failed over failovers, and not by its connection"


def compare(out, suite, reasons):
    """A row; what is different and not known, in words."""
    ways = [load(out, suite, way) for way in ("direct", "through", "failovers")]
    new, explained = [], set()
    for name, what in differences(out, suite, *ways):
        if any(of == suite and re.search(pattern, name) for of, pattern, _ in reasons):
            explained.add(name)
        else:
            new.append(f"{suite}: {name}: {what}")
    columns = [suite, *(counted(tests) if tests is not None else "not run" for tests in ways), str(len(explained)), str(len(new))]
    print("| " + " | ".join(columns) + " |")
    return new


def main():
    out, *suites = sys.argv[1:]
    reasons = known()
    print("| suite | direct | through | with failovers | different, known | not known |\n|---|---|---|---|---|---|")
    new = [line for suite in suites for line in compare(out, suite, reasons)]
    print("\n".join(new))
    sys.exit(bool(new))


main()
