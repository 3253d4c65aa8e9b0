"""Catches the signals that ask a run to stop."""

import signal
import threading
from collections.abc import Callable
from typing import Any


class StopSignal:
    """Remembers SIGTERM and SIGINT until the current call is done; a second signal ends the program at once.

    Attributes:
      received: whether a signal has come.
    """

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        """Prepares a context manager, which catches signals within its block.

        Args:
          then: called when a signal arrives, possibly between any two instructions.
        """
        self._then = then

    def __enter__(self) -> "StopSignal":
        self.received = False
        # Signals reach only the main thread, and only there can handlers be set.
        in_main = threading.current_thread() is threading.main_thread()
        self._before: dict[int, Any] = {}  # filled one by one: a signal may arrive before the second handler is set
        for number in (signal.SIGTERM, signal.SIGINT) if in_main else ():
            self._before[number] = signal.signal(number, self._receive)
        return self

    def _receive(self, number: int, frame: Any) -> None:
        self.received = True
        self._then()
        self._restore()

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
