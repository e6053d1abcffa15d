"""Exercises whose checks say what is wrong, and how to write one.

A lesson's file, ``tutorial_lib/checks/lessonNN.py``, holds its exercises and questions as module
variables; ``all_exercises()`` finds them. A complete exercise:

    def _rates(alpha_bar):                          # the model answer, shown by .solution()
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    def _rates_cases(generator):                    # fresh random arguments, several shapes
        for size in (1, 2, 7):
            yield (torch.rand(size, generator=generator),)

    rates = Exercise(
        "lesson01.rates",                           # lessonNN.<name of the variable>
        "Signal rate and noise rate",
        difficulty=1,                               # 1 to 3
        minutes=3,
        hints=("Variances add up; rates are standard deviations.", "`x.sqrt()` is the root of x."),
        model_answer=_rates,
        cases=_rates_cases,
        parts=("signal_rate", "noise_rate"),        # names for a tuple
        mistakes=(
            Mistake("no root", lambda a: (a, 1 - a), "These are variances; rates are roots."),
            Mistake("swapped", lambda a: _rates(a)[::-1], "The two rates are swapped."),
        ),
        alternatives=(                              # right, written another way: at least two
            lambda a: (a**0.5, (1 - a) ** 0.5),
            lambda a: (np.sqrt(a.numpy()), np.sqrt(1 - a.numpy())),
        ),
    )

The learner calls ``lesson01.rates.check(my_rates)``, ``.hint(1)``, ``.solution()``.

The framework handles stubs, forgotten returns, exceptions (with the learner's line), shapes, kinds
of numbers, NaN, endless loops and prints, and restores the random state. float32, float64, NumPy
arrays and Python numbers all pass. Every call gets new arguments, so in-place answers pass; the
learner is warned that the caller's numbers change. Results never change by chance, because all
cases come from one seed, the field ``seed``. A grading replaces it: cases must differ by the
generator they get, and right answers pass with any seed.

Rules, enforced by ``tests/checks/test_exercises.py``:

- The model answer and every alternative pass; each mistake fails *with its own name*, so any two
  mistakes differ in some case. Batch 1 is among the cases, and so is a batch where a broken
  broadcast goes unnoticed (batch = width) if that is a mistake people make.
- A message is unique, kind, at most 300 characters, and says what to look at, not the answer.
- The model answer is the only copy of the solution: the builder puts its body into the solved
  notebook, and ``.solution()`` shows it, without the underscore. So it may use only names that the
  lesson has imported, no helper of its file, and its arguments are those of the lesson's stub.
- Mistakes take the same arguments as the model answer. Cases are small: a check takes well under
  a second.

When values are not enough:

- ``reference=`` gives the expected values instead of the model answer; it may be the library's
  function.
- ``properties=(Property("...", holds, mistake="name"),)``: ``holds(answer)`` is True or False. A
  mistake that gives the right values fails here and is named by the property. The answer it gets
  returns tensors, whatever the learner's own returns (see ``tidy``).
- ``use=`` says how an answer is used: ``use(answer, *case)`` returns what is compared. Run a class
  (``answer(dim)(x)``), take the last of a generator, or *statistics* of a random answer, which do
  not depend on the order of its draws: ``use=lambda f, x0, generator: moments(f(x0, generator))``
  with a ``reference`` that gives the exact moments and a wide ``atol``. The reference is called as
  ``reference(*case)``, without ``use``. ``tensor_like(result, x)`` there rejects a wrong shape,
  None and NaN with the usual messages.
- ``raise Wrong("shape", "...")`` inside ``use`` or ``holds`` rejects the answer at once;
  ``mistake="name"`` names the mistake.

``progress`` judges answers that run in another process (see ``remote``). Arguments are numbers,
tensors, generators, dataclasses of the library such as schedules, and functions or models to ask.
If an answer changes a network or an optimizer in place, or transforms a network as ``torch.func``
does, say ``together=True``.

Concept questions: ``Choice`` (every wrong option has its explanation) and ``Number`` (tolerance and
common wrong values). They are checked, hinted and solved the same way.
"""

from tutorial_lib.checks.framework.exercise import Exercise, source_of
from tutorial_lib.checks.framework.questions import Choice, Number
from tutorial_lib.checks.framework.task import (
    STAGES,
    Mistake,
    Note,
    Outcome,
    Property,
    Result,
    Task,
    Wrong,
)
from tutorial_lib.checks.framework.tensors import per_sample, tensor_like, tidy

__all__ = [
    "STAGES",
    "Choice",
    "Exercise",
    "Mistake",
    "Note",
    "Number",
    "Outcome",
    "Property",
    "Result",
    "Task",
    "Wrong",
    "per_sample",
    "source_of",
    "tensor_like",
    "tidy",
]
