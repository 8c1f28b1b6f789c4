"""What a notebook needs around the code: `start`, `diagram`, `explore`, `play`,
`listen`, `guess`, `measured`, `check`, `quiz`, `source`, `footer` and plots."""

from mtmm_lib.lesson.checking import check
from mtmm_lib.lesson.claims import ClaimError, claim, finding, measured
from mtmm_lib.lesson.code import source
from mtmm_lib.lesson.diagram import diagram
from mtmm_lib.lesson.explorer import explore
from mtmm_lib.lesson.guesses import guess
from mtmm_lib.lesson.listening import listen
from mtmm_lib.lesson.overview import overview
from mtmm_lib.lesson.page import records
from mtmm_lib.lesson.parts import Flow, Part
from mtmm_lib.lesson.play import play
from mtmm_lib.lesson.plots import COLOURS, colour, figure, look
from mtmm_lib.lesson.progress import forget_progress, progress
from mtmm_lib.lesson.questions import quiz
from mtmm_lib.lesson.session import footer, seed, seeds, start
from mtmm_lib.results import Bound, Gain, at_least, at_most, between

__all__ = [
    "Bound",
    "COLOURS",
    "ClaimError",
    "Flow",
    "Gain",
    "Part",
    "at_least",
    "at_most",
    "between",
    "check",
    "claim",
    "colour",
    "diagram",
    "explore",
    "figure",
    "finding",
    "footer",
    "forget_progress",
    "guess",
    "listen",
    "look",
    "measured",
    "play",
    "overview",
    "progress",
    "quiz",
    "records",
    "seed",
    "seeds",
    "source",
    "start",
]
