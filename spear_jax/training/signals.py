"""Hears the signals that ask a run to stop."""

import signal
import threading
from collections.abc import Callable
from typing import Any


class StopSignal:
    """SIGTERM and SIGINT, remembered until the call under way is done; a second one ends the program at once."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        """Listens to nothing yet.

        Args:
          then: is called when a signal comes, between any two instructions of the program.
        """
        self._then = then

    def __enter__(self) -> "StopSignal":
        self.asked = False
        # Signals reach the main thread alone, and only there can be listened to.
        heard = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
        self._before = {number: signal.signal(number, self._ask) for number in heard}
        return self

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = True
        self._then()
        self._restore()

    def __exit__(self, *fault: object) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
