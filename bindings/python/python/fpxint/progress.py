"""Progress of long work: a callable of the user's, or tqdm's bars."""

from __future__ import annotations

from typing import Any, Callable, Optional, Union

Progress = Union[None, bool, Callable[[str, int, int], object]]
"""`None`, `True` for tqdm where it is installed, or `progress(what, done, total)`, called from the calling thread."""


class _Bars:
    """One bar of tqdm for each kind of work in turn."""

    def __init__(self, tqdm: Callable[..., Any]) -> None:
        self._tqdm = tqdm
        self._bar: Any = None
        self._what = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._bar is None or self._what != what:
            self.close()
            self._bar, self._what = self._tqdm(total=total, desc=what), what
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def watcher(progress: Progress) -> Optional[Callable[[str, int, int], object]]:
    """What the extension calls."""
    if progress is None or progress is False:
        return None
    if progress is not True:
        return progress
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return _Bars(tqdm)


def close(watch: Optional[Callable[[str, int, int], object]]) -> None:
    """Ends what `watcher` began."""
    if isinstance(watch, _Bars):
        watch.close()
