"""Networks of timm with their published weights, from the hub or from files, and why they cannot be had."""

import contextlib
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from huggingface_hub import constants, errors
from safetensors.torch import load_file
from torch import Tensor, nn

from kd_mil.core.errors import UserError

SECONDS = 3.0
"""To wait for a first answer of the network."""
HUB, FOLDER = "hf-hub:", "local-dir:"
WRAPPERS = ("state_dict", "model", "teacher")
"""Keys under which training programs keep the weights of a network in a file."""


def create_model(name: str, pretrained: bool, **options: Any) -> nn.Module:
    """`timm.create_model`; without a network, weights that were fetched before are used, and others fail at once.

    Weights of a hub or a folder must be those of the network, all of them and no others but the classifier's.

    Args:
        name: of timm, `hf-hub:OWNER/MODEL`, or `local-dir:FOLDER` with a `config.json` and weights as on the hub.
        pretrained: with its weights.
        **options: of the network.

    Raises:
        OSError, RuntimeError, ValueError: no such model, or weights out of reach.
        UserError: weights of another architecture.
    """
    import timm  # half a second, which runs on other networks spare

    ours = pretrained and name.startswith((HUB, FOLDER))
    with reachable_hub(asking=pretrained or name.startswith(HUB)):
        network = timm.create_model(name, pretrained=pretrained and not ours, **options)
        if ours:
            place = name.partition(":")[2]
            found = (
                state_in_folder(Path(place)) if name.startswith(FOLDER) else timm.models.load_state_dict_from_hf(place)
            )
            load_strictly(network, found, name)
    return network


@contextlib.contextmanager
def reachable_hub(asking: bool) -> Iterator[None]:
    """Within it the hub's own client is offline where nothing answers: it would ask again and again for minutes."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or (asking and not answers(*gateway()))
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def gateway() -> tuple[str, int]:
    """Host and port that a connection to the hub goes to: the hub's, or a proxy's."""
    address = urlsplit(getproxies().get("https") or constants.ENDPOINT)
    return address.hostname or "", address.port or (80 if address.scheme == "http" else 443)


def answers(host: str, port: int) -> bool:
    """Whether anything answers there within `SECONDS`; in a thread, since looking up a name has no time limit."""
    found = []

    def connect() -> None:
        try:
            with socket.create_connection((host, port), timeout=SECONDS):
                found.append(True)
        except OSError:
            return

    asking = threading.Thread(target=connect, daemon=True)
    asking.start()
    asking.join(SECONDS)
    return bool(found)


def read_state(path: Path, setting: str = "encoder.weights") -> dict[str, Tensor]:
    """The weights in a `.safetensors` file or in what `torch.save` wrote, read without unpickling.

    Args:
        path: of the file.
        setting: what a user names it by, for messages.

    Raises:
        UserError: no such file, or one without weights.
    """
    if not path.is_file():
        raise UserError(f"{setting}={path}: no such file or folder")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what readers of foreign files raise
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        if "Weights only load failed" in reason:
            reason = "it is no file of torch.save, or holds more than tensors"
        raise UserError(f"{setting}={path} holds no weights that can be read safely: {reason}") from error
    while isinstance(found, dict) and (
        inner := next((key for key in WRAPPERS if isinstance(found.get(key), dict)), "")
    ):
        found = found[inner]
    if not isinstance(found, dict) or not any(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"{setting}={path} holds no weights by name: give a state dict or .safetensors")
    return {key.removeprefix("module."): value for key, value in found.items() if isinstance(value, Tensor)}


def state_in_folder(folder: Path) -> dict[str, Tensor]:
    """The weights in a folder laid out as on the hub.

    Raises:
        UserError: none, or several files of which none has the hub's name.
    """
    names = ("model.safetensors", "pytorch_model.bin", "*.safetensors", "*.bin", "*.pth", "*.pt")
    for name in names:
        files = sorted(folder.glob(name))
        if len(files) > 1:
            raise UserError(f"{folder} holds {len(files)} files {name}: give one as encoder.weights=FILE")
        if files:
            return read_state(files[0])
    raise UserError(f"{folder} holds no weights: expected model.safetensors or pytorch_model.bin")


def load_strictly(network: nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Put weights into a network of timm: each of its tensors must be there, and nothing else but a classifier's.

    Raises:
        UserError: weights of another architecture, or of another size; the first keys that differ are named.
    """
    own = network.state_dict()
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert and any(key not in state or own[key].shape != state[key].shape for key in own):
        with contextlib.suppress(RuntimeError):  # what it cannot convert is named below as it is
            state = convert(dict(state), network)
    classifier = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    heads = tuple(f"{name}." for name in ((classifier,) if isinstance(classifier, str) else classifier))
    missing = [key for key in own if key not in state]
    strange = [key for key in state if key not in own and not key.startswith(heads)]
    if missing or strange:
        facts = [
            f"{len(keys)} of {total} tensors {what}, first {keys[0]}"
            for keys, total, what in (
                (missing, len(own), "of the network are not in the file"),
                (strange, len(state), "of the file are not in the network"),
            )
            if keys
        ]
        raise UserError(f"{where}: weights of another architecture, {'; '.join(facts)}: see encoder.model_args")
    sizes = [key for key in own if own[key].shape != state[key].shape]
    if sizes:
        there, here = tuple(state[sizes[0]].shape), tuple(own[sizes[0]].shape)
        raise UserError(
            f"{where}: {len(sizes)} of {len(own)} tensors are of another size, first {sizes[0]}, {there} in the file "
            f"and {here} in the network: see encoder.model_args and encoder.img_size"
        )
    network.load_state_dict({key: state[key] for key in own})


def why_unavailable(name: str, error: BaseException) -> str:
    """One line for a model that could not be made: gated, unknown, out of reach, or what else it was."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) and cause not in causes:
        causes.append(cause)

    def of(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    page = f"{constants.ENDPOINT}/{name.removeprefix(HUB).partition('@')[0]}"
    copy = "or give a copy: encoder.weights=FILE_or_FOLDER"
    if of(errors.GatedRepoError):
        return f"is gated: accept its licence at {page}, set HF_TOKEN to your token, {copy}"
    if of(errors.RepositoryNotFoundError):
        return f"is not on the hub, or private: check {page}, set HF_TOKEN to your token where it is private"
    if of(errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError, TimeoutError):
        return f"was not fetched before, and the network is out of reach: connect once, take encoder=lite0, {copy}"
    if of(errors.EntryNotFoundError):
        return (
            f"has no files of timm: name the architecture, encoder.name=ARCHITECTURE encoder.weights=FILE, see {page}"
        )
    reason = " ".join(str(error).split()).partition(". ")[0][:160]
    return f"the model or its weights cannot be had ({reason}): see encoder.name and encoder.pretrained"
