"""A progress bar for those who look at it."""

from __future__ import annotations

from typing import Any


def bar(*args: Any, **settings: Any) -> Any:
    """A bar of `tqdm` that leaves nothing behind, made with its arguments.

    It hides where the output is a file, and goes away when it is done; from a notebook,
    too, which would otherwise be saved with a bar that no longer exists.
    """
    from tqdm.auto import tqdm
    from tqdm.notebook import tqdm_notebook

    settings |= {"leave": False, "disable": settings.get("disable")}
    if not issubclass(tqdm, tqdm_notebook):
        return tqdm(*args, **settings)
    shown = tqdm(*args, display=False, **settings)
    if shown.disable:
        return shown
    from IPython.display import display

    place, close = display(shown.container, display_id=True), shown.close

    def leave() -> None:
        close()
        place.update({}, raw=True)

    shown.close = leave
    return shown
