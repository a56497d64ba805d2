"""How well a source fits the target: arrays in, numbers out."""

from autoxfer.diagnostics.crossfit import stratified
from autoxfer.diagnostics.examination import WIDEST, Assessment, Case, Head, examine
from autoxfer.diagnostics.gain import scratch_error
from autoxfer.diagnostics.labels import Labels
from autoxfer.diagnostics.ranking import arrange
from autoxfer.diagnostics.spectrum import Turned, standardised

__all__ = [
    "WIDEST",
    "Assessment",
    "Case",
    "Head",
    "Labels",
    "Turned",
    "arrange",
    "examine",
    "scratch_error",
    "standardised",
    "stratified",
]
