"""The command line: ``python -m tutorial_lib train | sample | doctor | progress``."""

from tutorial_lib.cli.program import (
    EXPECTED,
    LARGEST_GRID,
    DoctorConfig,
    ProgressConfig,
    SampleConfig,
    UsageError,
    main,
)

__all__ = [
    "EXPECTED",
    "LARGEST_GRID",
    "DoctorConfig",
    "ProgressConfig",
    "SampleConfig",
    "UsageError",
    "main",
]
