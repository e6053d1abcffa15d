"""The judge: it asks for answers and compares them, in this process, with fresh cases."""

import dataclasses
import hmac
import secrets
import socket
from collections.abc import Mapping

from tutorial_lib.checks import Result, Task, all_exercises
from tutorial_lib.checks.framework import Exercise, source_of
from tutorial_lib.checks.framework.asking import BadMessageError, Session
from tutorial_lib.checks.framework.remote.channel import Channel, GoneError
from tutorial_lib.cli.progress import copied


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the judge thinks of an answer, and whether it is the solution that the course shows."""

    result: Result
    as_solution: bool


class Judge:
    """Judges answers with cases of one seed; the same answer gets the same verdict.

    Args:
        seed: of the cases, 0 or above; None draws one that nobody can know.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = secrets.randbits(48) if seed is None else seed
        self.tasks: Mapping[str, Task] = {
            task.id: dataclasses.replace(task, seed=self._seed_of(task.id))
            if isinstance(task, Exercise)
            else task
            for task in all_exercises()
        }
        # read the sources now, before anything that is not ours runs
        self.solutions = {
            name: copied.shapes(source_of(task.model_answer))
            for name, task in self.tasks.items()
            if isinstance(task, Exercise)
        }

    def hear(self, connection: socket.socket, password: str) -> Verdict | None:
        """The verdict on the answer that a notebook hands over; None if it has said nothing.

        Raises:
            BadMessageError: what it says is no answer to an exercise of the course.
        """
        session = Session(Channel(connection))
        try:
            handed = session.open(password)
            task = self.tasks.get(handed.exercise)
            if task is None:
                raise BadMessageError(f"an answer to the unknown exercise {handed.exercise[:80]!r}")
            result = self._judge(task, handed.answer)
            if isinstance(session.broken, BadMessageError):
                raise session.broken
        except GoneError:
            return None
        finally:
            session.close()
        return Verdict(result, copied.is_copy(handed, self.solutions.get(task.id, frozenset())))

    def _judge(self, task: Task, answer: object) -> Result:
        try:
            return task.judge(answer)
        except Exception as error:  # values so strange that the judge stumbles
            text = f"an answer to {task.id} that cannot be judged ({type(error).__name__}: {error})"
            raise BadMessageError(text) from error

    def _seed_of(self, name: str) -> int:
        digest = hmac.digest(str(self.seed).encode(), name.encode(), "sha256")
        return int.from_bytes(digest[:6], "big")
