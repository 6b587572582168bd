"""The same work on every slide, with a bar, in this process or in several."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def over_slides(
    work: Callable[[Item], Result], items: Sequence[Item], description: str, processes: int
) -> list[Result]:
    """The results of `work` in order, with a bar over the slides; 0 processes work in this one."""
    bar = {"total": len(items), "desc": description, "unit": "slide", "disable": None, "leave": False}
    if processes == 0:
        return [work(item) for item in tqdm(items, **bar)]
    with ProcessPoolExecutor(processes) as pool:
        return list(tqdm(pool.map(work, items), **bar))
