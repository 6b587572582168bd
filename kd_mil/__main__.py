"""Every command under one name: `kd-mil run experiment=weno` is `python -m kd_mil.run experiment=weno`."""

import runpy
import signal
import sys

import kd_mil

COMMANDS = {
    "run": "train, select on validation, test once",
    "extract": "slides to features",
    "predict": "a trained method on new slides or features",
    "evaluate": "predictions against labels: scores, intervals, calibration, subgroups",
    "segment": "masks of images and slides",
    "chain": "slide labels to masks: WENO marks tiles, IFKD segments their pixels",
    "report": "many runs in one page",
    "reproduce": "the tables of the papers beside ours",
    "frontier": "accuracy against cost",
    "view": "predictions in a browser",
    "export": "features, or a model, in the format of another tool",
    "doctor": "versions, devices, data",
}
"""What each does; the files beside this one."""
MORE = {
    "list": "experiments, methods, aggregators, encoders, data, ...: [embedded] works as it is; others "
    "need data or code ([yours]), a download ([weights]), an extra ([extra])",
    "show": "all settings of a run, each with its comment: kd-mil show experiment=weno_dsmil",
    "init": "an experiment of your own to edit: kd-mil init weno data=feature_bags > mine.yaml; then experiment=mine",
    "completion": 'for the tab key: eval "$(kd-mil completion bash)" in ~/.bashrc, of zsh in ~/.zshrc',
}


def usage() -> str:
    """What `kd-mil --help` prints."""
    rows = [f"  {name:12}{what}" for name, what in (COMMANDS | MORE).items()]
    return "\n".join(["kd-mil COMMAND [key=value ...]     kd-mil COMMAND --help: its settings", "", *rows])


def answer(name: str, arguments: list[str]) -> str:
    """What `list`, `show`, `init` and `completion` print.

    Raises:
        UserError: a kind, an experiment or a shell that does not exist.
    """
    from kd_mil.core.errors import UserError

    if name == "completion":
        from kd_mil.cli.completion import SHELLS

        if len(arguments) != 1 or arguments[0] not in SHELLS:
            raise UserError('completion needs a shell, bash or zsh: eval "$(kd-mil completion bash)"')
        return SHELLS[arguments[0]]
    from kd_mil.cli import catalogue, command, composed

    if name == "list":
        if len(arguments) != 1:
            raise UserError("list needs one kind: experiments, methods, aggregators, encoders, data, ...")
        rows = catalogue.catalogue(command.CONFIG_DIR, arguments[0])
        width = max(len(row[0]) for row in rows) + 2
        return "\n".join(f"{name:{width}}{what}".rstrip() for name, what in rows)
    return composed.shown_settings(arguments) if name == "show" else composed.experiment_file(arguments)


def main() -> None:
    """The command line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, kd_mil._leave)
    name, arguments = [*sys.argv[1:2], "--help"][0], sys.argv[2:]
    if name not in COMMANDS and hasattr(signal, "SIGPIPE"):  # `kd-mil show | head` ends as other tools do
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if name in ("-h", "--help"):
        print(usage())
    elif name == "--version":
        print(f"kd_mil {kd_mil.__version__}")
    elif name in MORE and {"-h", "--help"} & set(arguments):
        print(f"kd-mil {name}: {MORE[name]}")
    elif name in COMMANDS:
        sys.argv[1:] = arguments
        runpy.run_module(f"kd_mil.{name}", run_name="__main__", alter_sys=True)
    elif name == "complete":  # what the shell asks
        from kd_mil.cli.arguments import CONFIG_DIR
        from kd_mil.cli.completion import candidates

        print(*candidates(CONFIG_DIR, (COMMANDS | MORE).keys(), sys.argv[2]), sep="\n")
    elif name in MORE:
        from kd_mil.cli.mistakes import one_line_for_each_mistake

        with one_line_for_each_mistake(verbose=False):
            print(answer(name, arguments))
    else:
        print(f"error: {name}: no such command; kd-mil lists all", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
