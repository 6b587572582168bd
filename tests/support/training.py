"""Whole runs in this process: the configuration of a command, trained to its end."""

import gc
import signal

from omegaconf import open_dict

from kd_mil.jobs.run import main
from tests.support.configs import compose_run


def train(directory, *overrides):
    """What `python -m kd_mil.run` with these overrides does in a directory, on the CPU; its return value."""
    device = [] if any(override.startswith("trainer=") for override in overrides) else ["trainer=cpu"]
    config = compose_run(*device, *overrides, run_dir=str(directory))
    with open_dict(config):
        config.pop("hydra")
    listening = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        return main(config)
    finally:  # a run listens for signals, and holds the lock of its directory, for as long as it lives
        for signum, handler in listening.items():
            signal.signal(signum, handler)
        gc.collect()
