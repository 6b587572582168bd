"""What `kd_mil.plot` offers, for type checkers and editors."""

from kd_mil.plot.scores import reliability as reliability
from kd_mil.plot.scores import roc as roc
from kd_mil.plot.slides import heatmap as heatmap
from kd_mil.plot.slides import top_tiles as top_tiles
