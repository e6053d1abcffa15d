"""An answer that is judged in another process than the one it runs in.

``progress`` runs a learner's notebook in a kernel and judges in its own process. Between the two go
plain numbers and text only:

- ``answering``, in the notebook's process: ``check`` calls ``hand_over``, which lends the answer to
  the judge. It calls the answer whenever the judge asks for it, and sends what it gave.
- ``framework.asking``, in the judge's process: ``RemoteAnswer`` looks like the learner's function.
  The exercise's own code (its cases, ``use``, properties, expected values, known mistakes) runs
  there, with the judge's copy of the library, so nothing that the notebook changes can reach it. A
  model among the arguments stays there as well: the notebook gets a stand-in that asks for each
  value.
- ``wire`` and ``channel``, on both sides: values as JSON, and JSON through a socket.

An exercise whose answer changes networks in place says ``together=True``: then its ``use`` runs
beside the answer, on cases drawn there from the judge's seed, and only its values come back.
"""
