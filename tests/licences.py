"""Checks that every dependency may be shipped under MIT OR Apache-2.0, and that none has a known advisory where that can be told.

    licences.py MANIFEST ...

Reads `cargo metadata` of each Cargo.toml. Advisories are checked with cargo-deny or cargo-audit where one is installed and its
database is there or can be had; otherwise that is said. Exit code 1 if a check fails.
"""

import json
import re
import shutil
import subprocess
import sys

ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
}


def admits(expression):
    """Whether an SPDX expression can be met: some alternative with only allowed licences."""
    words = re.findall(r"\(|\)|[^\s()/]+|/", expression.replace(" WITH ", "_WITH_"))
    place = 0

    def alternatives():
        nonlocal place
        found = together()
        while place < len(words) and words[place] in ("OR", "/"):
            place += 1
            found = together() or found
        return found

    def together():
        nonlocal place
        found = one()
        while place < len(words) and words[place] == "AND":
            place += 1
            found = one() and found
        return found

    def one():
        nonlocal place
        word = words[place]
        place += 1
        if word == "(":
            found = alternatives()
            place += 1
            return found
        return word.replace("_WITH_", " WITH ") in ALLOWED

    return alternatives()


def packages(manifest):
    """Name, version and licence of every dependency of a manifest."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--manifest-path", manifest]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return [(p["name"], p["version"], p["license"] or "") for p in found["packages"] if p["source"]]


def advisories(manifest):
    """What is known against the dependencies; `None` where nothing can tell."""
    lock = manifest.replace("Cargo.toml", "Cargo.lock")
    for tool, command in (
        ("cargo-deny", ["cargo", "deny", "--manifest-path", manifest, "check", "advisories"]),
        ("cargo-audit", ["cargo", "audit", "--file", lock]),
    ):
        if shutil.which(tool):
            done = subprocess.run(command, capture_output=True, text=True)
            unreachable = "fetch" in done.stderr.lower() and done.returncode != 0
            return None if unreachable else (done.returncode, done.stdout + done.stderr)
    return None


def main(manifests):
    """Prints what is wrong."""
    assert admits("MIT/Apache-2.0") and admits("(MIT OR GPL-3.0) AND ISC") and not admits("MIT AND GPL-3.0")
    wrong = 0
    for manifest in manifests:
        found = packages(manifest)
        bad = [(name, version, licence) for name, version, licence in found if not licence or not admits(licence)]
        for name, version, licence in bad:
            print(f"{manifest}: {name} {version}: licence {licence or 'not stated'}")
        wrong += len(bad)
        print(f"{manifest}: {len(found) - len(bad)} dependencies have licences that do")
        told = advisories(manifest)
        if told is None:
            print(f"{manifest}: advisories were not checked: no cargo-deny or cargo-audit, or no database")
        elif told[0]:
            print(told[1])
            wrong += 1
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
