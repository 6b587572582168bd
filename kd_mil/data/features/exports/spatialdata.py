"""Feature bags written as SpatialData (https://spatialdata.scverse.org), named as LazySlide names them."""

import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from kd_mil.core.errors import UserError
from kd_mil.data.features.exports.export import exported, single_precision
from kd_mil.data.features.files.feature_file import FeatureFile
from kd_mil.data.features.files.tile_facts import TileFacts, tile_facts

TILES = "tiles"


def export_spatialdata(table: pd.DataFrame, folder: Path, out: Path, tumour_threshold: float) -> pd.DataFrame:
    """SpatialData: `ID.zarr` with the shapes `tiles`, squares in level-0 pixels, and the table `ENCODER_tiles`.

    The table is an AnnData (N tiles x D features, float32) with middles of tiles in `obsm["spatial"]`, and instance
    labels, where they are known, in `obs["instance_label"]`. Label, case, part and resolution are attributes.

    Args:
        table: as from `layouts.feature_table`.
        folder: from which its paths start.
        out: made if need be; slides of the same name are replaced.
        tumour_threshold: least tumour area of a positive tile, where files hold areas.

    Returns:
        The summary, see `export.exported`.

    Raises:
        UserError: spatialdata is not installed; no slide could be written.
    """
    library = _library()

    def write(row: Mapping[str, Any], bag: FeatureFile) -> None:
        facts = tile_facts(bag, row)
        labels = bag.instance_labels(tumour_threshold).numpy() if bag.has_labels else None
        slide = library.SpatialData(
            shapes={TILES: _squares(facts)},
            tables={f"{facts.encoder}_{TILES}": _features(facts, single_precision(bag), labels)},
            attrs={"tile_spec": {TILES: _specification(facts)}, "kd_mil": _attributes(facts, row)},
        )
        path = out / f"{row['slide_id']}.zarr"
        aside = path.with_name(f".{path.name}.part")
        shutil.rmtree(aside, ignore_errors=True)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*autosharding will be the default.*")  # of anndata, per array
            slide.write(aside)
        shutil.rmtree(path, ignore_errors=True)
        aside.rename(path)

    out.mkdir(parents=True, exist_ok=True)
    return exported(table, folder, out, write)


def _library() -> ModuleType:
    try:
        import spatialdata
    except ImportError as error:
        raise UserError(f"format=spatialdata: {error}; install it: pip install 'kd-mil[spatialdata]'") from error
    return spatialdata


def _squares(facts: TileFacts) -> Any:
    import geopandas
    import shapely
    from spatialdata.models import ShapesModel

    x, y = facts.coords.T
    columns = {"tile_id": np.arange(len(x)), "x": x, "y": y}
    squares = shapely.box(x, y, x + facts.size_level0, y + facts.size_level0)
    return ShapesModel.parse(geopandas.GeoDataFrame(columns, geometry=squares))


def _features(facts: TileFacts, features: np.ndarray, labels: np.ndarray | None) -> Any:
    from anndata import AnnData
    from spatialdata.models import TableModel

    numbers = np.arange(len(features))
    rows = pd.DataFrame({"tile_id": numbers}, index=[str(number) for number in numbers])
    rows["library_id"] = pd.Categorical([TILES] * len(features))
    if labels is not None:
        rows["instance_label"] = labels
    table = AnnData(X=features, obs=rows, obsm={"spatial": facts.coords + facts.size_level0 / 2})
    return TableModel.parse(table, region=TILES, region_key="library_id", instance_key="tile_id")


def _specification(facts: TileFacts) -> dict[str, Any]:
    """LazySlide's record of a grid."""
    size = facts.size or facts.size_level0
    step = size - facts.overlap
    sides = {"height": size, "width": size, "stride_height": step, "stride_width": step}
    finer = float(np.nextafter(facts.size_level0 / size, np.inf))  # its product with the side is cut to an integer
    return {**sides, "mpp": facts.mpp, "ops_level": 0, "ops_downsample": finer, "base_downsample": finer}


def _attributes(facts: TileFacts, row: Mapping[str, Any]) -> dict[str, Any]:
    named = {name: row[name] for name in ("slide_id", "case_id", "label", "split", "fold") if row.get(name)}
    return {**named, "encoder": facts.encoder, "mpp": facts.mpp, "slide_mpp": facts.slide_mpp}
