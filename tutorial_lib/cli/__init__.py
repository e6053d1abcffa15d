"""The command line: ``python -m tutorial_lib train | sample | doctor | progress``."""

from tutorial_lib.cli.doctor import DoctorConfig
from tutorial_lib.cli.program import EXPECTED, ProgressConfig, main
from tutorial_lib.cli.sample import LARGEST_GRID, SampleConfig
from tutorial_lib.cli.words import UsageError

__all__ = [
    "EXPECTED",
    "LARGEST_GRID",
    "DoctorConfig",
    "ProgressConfig",
    "SampleConfig",
    "UsageError",
    "main",
]
