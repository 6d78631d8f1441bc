"""A trainer's own ``train()``, one optimizer step at a time.

HF's loop can't be left and entered again, so it runs in a thread of its own that waits behind each
step. Only one thread ever runs: the caller waits while a step is made.
"""

import threading
from types import TracebackType

from transformers import Trainer, TrainerCallback


class PausedTraining:
    """Makes the steps of ``trainer.train()`` when it is told to; use it in a ``with``."""

    def __init__(self, trainer: Trainer):
        """``trainer``: with more ``max_steps`` than will be asked for."""
        self.trainer = trainer
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._stop = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        trainer.add_callback(_Pause(self))

    def __enter__(self) -> "PausedTraining":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def step(self) -> None:
        """Makes the next optimizer step; raises what it raises.

        The first one also sets the training up, and what HF does behind a step (logs) is done
        before the next one.
        """
        if self._thread is None:
            # Not waited for at exit: it may hang in a step that the main thread has given up.
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        elif self._error is None and self._thread.is_alive():
            self._go.release()
        else:
            raise RuntimeError("this training has ended")
        self._done.acquire()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Ends the training where it is, and gives its trainer back."""
        self._stop = True
        if self._thread is not None:
            self._go.release()
            self._thread.join()

    def _run(self) -> None:
        try:
            self.trainer.train()
        except BaseException as error:
            self._error = error
        finally:
            self._done.release()

    def _pause(self) -> bool:
        """Waits for `step`; whether training goes on."""
        self._done.release()
        self._go.acquire()
        return not self._stop


class _Pause(TrainerCallback):
    def __init__(self, paused: PausedTraining):
        self._paused = paused

    def on_step_end(self, args, state, control, **kwargs):
        if not self._paused._pause():
            control.should_training_stop = True
        return control
