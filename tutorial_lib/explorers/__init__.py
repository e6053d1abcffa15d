"""Explorers: pictures to drag, sixty times a second, each one line in a lesson.

    from tutorial_lib.explorers import ForwardExplorer
    ForwardExplorer(images, schedule)

Each is a widget for JupyterLab; on GitHub and in print a still picture stands for it. Those that
need no kernel also become a page of their own with ``explorer.save_html("page.html")``.
"""

from tutorial_lib._packages import brought_by

with brought_by("notebook", to="show explorers"):
    from tutorial_lib.explorers.denoiser.widget import DenoiserExplorer
    from tutorial_lib.explorers.editing.widget import EditingExplorer
    from tutorial_lib.explorers.embedding.widget import EmbeddingExplorer
    from tutorial_lib.explorers.flows.widget import FlowExplorer
    from tutorial_lib.explorers.forward.widget import ForwardExplorer
    from tutorial_lib.explorers.guidance.widget import GuidanceExplorer
    from tutorial_lib.explorers.playground.widget import Playground
    from tutorial_lib.explorers.receptive.widget import ReceptiveFieldExplorer
    from tutorial_lib.explorers.schedule.widget import ScheduleExplorer
    from tutorial_lib.explorers.solvers.widget import SolverExplorer
    from tutorial_lib.explorers.trajectory.widget import TrajectoryExplorer
    from tutorial_lib.explorers.words.walks import SentenceWalks as SentenceWalks
    from tutorial_lib.explorers.words.widget import WordsExplorer

__all__ = [
    "DenoiserExplorer",
    "EditingExplorer",
    "EmbeddingExplorer",
    "FlowExplorer",
    "ForwardExplorer",
    "GuidanceExplorer",
    "Playground",
    "ReceptiveFieldExplorer",
    "ScheduleExplorer",
    "SolverExplorer",
    "TrajectoryExplorer",
    "WordsExplorer",
]
