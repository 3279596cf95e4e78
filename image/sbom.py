"""The bill of materials of the root it runs on, as SPDX 2.3 JSON: Debian's packages, the program's wheels, and the
sources of the plugins in Go, which the file given lists.

Law: it says what the package databases say, and is the same for the same contents: neither dates nor random numbers.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

DEBIAN = ("dpkg-query", "--show", "--showformat", "${Package} ${Version} ${Architecture} ${Status}\n")
CREATED = "1970-01-01T00:00:00Z"
"""SPDX asks for a date; the image's label has the true one."""


def main() -> None:
    name, version = "tunrouter", next(d.version for d in distributions() if d.metadata["Name"] == "tunrouter")
    packages = [*_debian(), *_wheels(), *_sources(Path(sys.argv[1]))]
    packages.sort(key=lambda each: str(each["SPDXID"]))
    digest = hashlib.sha256(json.dumps(packages).encode()).hexdigest()
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"{name}-{version}",
        "documentNamespace": f"https://spdx.org/spdxdocs/{name}-{version}-{digest[:32]}",
        "creationInfo": {"created": CREATED, "creators": ["Tool: tunrouter-image"]},
        "packages": packages,
        "relationships": [_related("SPDXRef-DOCUMENT", "DESCRIBES", each["SPDXID"]) for each in packages],
    }
    json.dump(document, sys.stdout, indent=1)


def _debian() -> Iterator[dict[str, Any]]:
    for line in subprocess.run(DEBIAN, check=True, capture_output=True, text=True).stdout.splitlines():
        name, version, architecture, *status = line.split()
        if status[-1] == "installed":
            url = f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={architecture}"
            yield _package(f"deb-{name}", name, version, url)


def _wheels() -> Iterator[dict[str, Any]]:
    for each in distributions():
        name = each.metadata["Name"]
        yield _package(f"pypi-{name}", name, each.version, f"pkg:pypi/{name.lower().replace('_', '-')}@{each.version}")


def _sources(listed: Path) -> Iterator[dict[str, Any]]:
    """Of Debian, compiled into portmap, bandwidth and loopback."""
    for line in listed.read_text().splitlines():
        name, version = line.split()
        yield _package(f"source-{name}", name, version, f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch=source")


def _package(identity: str, name: str, version: str, url: str) -> dict[str, Any]:
    letters = "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in identity)
    return {
        "SPDXID": f"SPDXRef-{letters}",
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "externalRefs": [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": url},
        ],
    }


def _related(one: str, how: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": how, "relatedSpdxElement": other}


if __name__ == "__main__":
    main()
