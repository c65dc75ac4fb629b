"""How well changes and alignments agree with what is known.

Maps: `assess` (pixels and dates), `found_within` (lag), `objects`, `boundary`, `reliability` (probabilities),
`false_alarms` and `placebo` (stable ground). Polygons that a person marked: `marked`. Samples: `strata`,
`allocate`, `draw_sample`, then `area_estimates` or `stratified_estimates`. Alignments: `registration`.
"""

from geoalign.accuracy.alarms import AlarmRate, false_alarms, placebo
from geoalign.accuracy.alignment import registration
from geoalign.accuracy.areas import AreaEstimates, area_estimates, stratified_estimates
from geoalign.accuracy.marks import mark, marked
from geoalign.accuracy.objects import boundary, objects
from geoalign.accuracy.pixels import Assessment, assess
from geoalign.accuracy.reliability import Reliability, reliability
from geoalign.accuracy.sampling import allocate, draw_sample, strata
from geoalign.accuracy.timing import found_within

__all__ = [
    "AlarmRate",
    "AreaEstimates",
    "Assessment",
    "Reliability",
    "allocate",
    "area_estimates",
    "assess",
    "boundary",
    "draw_sample",
    "false_alarms",
    "found_within",
    "mark",
    "marked",
    "objects",
    "placebo",
    "registration",
    "reliability",
    "strata",
    "stratified_estimates",
]
