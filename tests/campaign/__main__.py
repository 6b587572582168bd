"""All campaigns, one after the other: `python -m tests.campaign [work=DIR] [...]`; the settings go to each of them."""

import sys

from tests.campaign import faults, kills, ranks, training_kills, tutorials, wrong_inputs

CAMPAIGNS = (faults, kills, ranks, training_kills, wrong_inputs, tutorials)
"""Modules with a `main(arguments)` that returns an exit code."""

if __name__ == "__main__":
    sys.exit(max(campaign.main(sys.argv[1:]) for campaign in CAMPAIGNS))
