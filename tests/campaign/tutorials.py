"""Execute the tutorials of the documentation: `python -m tests.campaign.tutorials`; each must run to its end."""

import sys

from docs.tutorials.execute import FOLDER, executed


def main(arguments: list[str]) -> int:
    """Execute them all, changing no file; settings of other campaigns are not for this one."""
    scripts = sorted(path for path in FOLDER.glob("*.py") if path.stem != "execute")
    for script in scripts:
        executed(script)
        print(f"{script.stem}: executed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
