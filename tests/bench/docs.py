# SPDX-License-Identifier: ISC
"""Writes what was measured into the docs."""

import sys


def write(path, text):
    """A file of the docs."""
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    print(path)


def replace_section(path, name, lines):
    """Puts the lines between the marks of that name."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    with open(path, encoding="utf-8") as f:
        whole = f.read()
    before, found, rest = whole.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        sys.exit(f"{path} has no lines '{begin}' and '{end}'")
    write(path, before + "\n".join([begin, "", *lines, "", end]) + after)
