"""The command line: ``python -m tutorial_lib train | sample | doctor | progress``."""

from tutorial_lib.cli.program import (
    EXPECTED,
    LARGEST_GRID,
    LESSONS,
    DoctorConfig,
    ProgressConfig,
    SampleConfig,
    UsageError,
    Work,
    main,
)

__all__ = [
    "EXPECTED",
    "LARGEST_GRID",
    "LESSONS",
    "DoctorConfig",
    "ProgressConfig",
    "SampleConfig",
    "UsageError",
    "Work",
    "main",
]
