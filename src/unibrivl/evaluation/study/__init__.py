"""The human study of UniBriVL's section 5.1: which of two pictures fits the sound, asked of people on a web page.

    from unibrivl.evaluation.study import build, report, served
    build("pairs.csv", "my-study")
    with served("my-study") as address: ...
    print(report("my-study").markdown())

The parts are in the order in which a study flows: `pairs` (what there is to judge), `pairing` (which two pictures
meet), `checks`, `presets`, `build` (the folder), `folder` (what each participant sees, in which order and on which
side), `answers` (the log), `server` and the page beside it, `report`.
"""

from unibrivl.evaluation.study.build import build
from unibrivl.evaluation.study.folder import Study
from unibrivl.evaluation.study.presets import PRESETS
from unibrivl.evaluation.study.report import report, summarize
from unibrivl.evaluation.study.server import served

__all__ = ["PRESETS", "Study", "build", "report", "served", "summarize"]
