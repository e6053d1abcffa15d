"""Explorers: pictures to drag, sixty times a second, each one line in a lesson.

    from tutorial_lib.explorers import ForwardExplorer
    ForwardExplorer(images, schedule)

Each is a widget for JupyterLab; on GitHub and in print a still picture stands for it. Those that
need no kernel also become a page of their own with ``explorer.save_html("page.html")``.
"""

from tutorial_lib.explorers._denoiser import DenoiserExplorer
from tutorial_lib.explorers._embedding import EmbeddingExplorer
from tutorial_lib.explorers._forward import ForwardExplorer
from tutorial_lib.explorers._guidance import GuidanceExplorer
from tutorial_lib.explorers._playground import Playground
from tutorial_lib.explorers._receptive import ReceptiveFieldExplorer
from tutorial_lib.explorers._schedule import ScheduleExplorer
from tutorial_lib.explorers._trajectory import TrajectoryExplorer

__all__ = [
    "DenoiserExplorer",
    "EmbeddingExplorer",
    "ForwardExplorer",
    "GuidanceExplorer",
    "Playground",
    "ReceptiveFieldExplorer",
    "ScheduleExplorer",
    "TrajectoryExplorer",
]
