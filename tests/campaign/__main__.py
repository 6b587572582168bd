"""All campaigns, one after the other: `python -m tests.campaign [work=DIR] [...]`; the settings go to each of them."""

import sys

from tests.campaign import faults, kills, training_kills, wrong_inputs

CAMPAIGNS = (faults, kills, training_kills, wrong_inputs)
"""Modules with a `main(arguments)` that returns an exit code."""

if __name__ == "__main__":
    sys.exit(max(campaign.main(sys.argv[1:]) for campaign in CAMPAIGNS))
