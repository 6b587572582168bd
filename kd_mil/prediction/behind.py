"""Work that one thread does behind the main one: the files of a slide, while the next slide is computed."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

Work = Callable[[], None]


class Behind:
    """Does pieces of work in their order, one at a time; at most one is at work and one is held.

    A piece is held until the caller says that it may begin: worker processes are forked before the first batch of a
    slide, and a fork beside a thread at work may copy a lock that is then never opened.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "writer")
        self._held: Work | None = None
        self._at_work: list[Future[None]] = []

    def hold(self, work: Work) -> None:
        """Keep a piece for later; the one held before begins."""
        self.begin()
        self._held = work

    def begin(self) -> None:
        """Let the thread do the piece that is held."""
        if self._held is not None:
            self._at_work.append(self._thread.submit(self._held))
            self._held = None

    def wait(self) -> None:
        """Until the thread is idle; raises what its work has raised."""
        while self._at_work:
            self._at_work.pop(0).result()

    def close(self) -> None:
        """Do what is left; raises as `wait`."""
        self.begin()
        try:
            self.wait()
        finally:
            self._thread.shutdown()


def announced(batches: Iterable[Tensor], begun: Work) -> Iterator[Tensor]:
    """The batches; `begun` is called once the first is there, and with it the processes that read them."""
    for number, batch in enumerate(batches):
        if number == 0:
            begun()
        yield batch
