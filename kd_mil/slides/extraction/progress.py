"""Progress bars of an extraction."""

from tqdm import tqdm


class Progress:
    """Two bars on a terminal, nothing elsewhere: slides, and the tiles of those begun."""

    def __init__(self, slides: int) -> None:
        self.slides = tqdm(total=slides, desc="slides", unit="slide", disable=None, position=0)
        self.tiles = tqdm(total=0, desc="tiles", unit="tile", disable=None, position=1, leave=False)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.tiles.close()
        self.slides.close()

    def begin(self, slide_id: str, tiles: int) -> None:
        """A slide's tiles are next."""
        self.tiles.total += tiles
        self.tiles.set_description(slide_id)
