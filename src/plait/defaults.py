"""Make plait's loop the one that asyncio gives to who asks for none in particular.

`asyncio.run`, `asyncio.Runner`, `asyncio.new_event_loop` and, up to 3.13, `asyncio.get_event_loop` all ask one place: the
event loop policy up to 3.15 (deprecated since 3.14), the function `asyncio.events.new_event_loop` after that. A loop, a
loop factory or a policy of the program's own is left alone.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import warnings
from typing import Any

from plait._rt.ground.code_origin import is_installed, is_librarys, is_plaits
from plait._rt.ground.cpython import _getframe
from plait._rt.strand.strand import Strand
from plait._rt.strand.thread_strand import ThreadStrand
from plait.runtime import Runner, new_event_loop


def serve_asyncio() -> None:
    """From now on asyncio's default loop is plait's, in this process."""
    if sys.version_info < (3, 16):
        _set_policy()
    else:
        _replace_function()
    _have_interrupts_wait()
    _watch_for_others()


def _watch_for_others() -> None:
    """Say so, once, when another loop than plait's begins to run: nothing of the program is served then, and nothing reported.

    Whoever runs a loop calls `_set_running_loop`. The first one that is not ours has been told of, and the usual one is put
    back; uvloop keeps what it found when it was imported.
    """
    usual = asyncio.events._set_running_loop
    modules: tuple[Any, ...] = asyncio, asyncio.events

    def _set_running_loop(loop: Any) -> None:
        if loop is not None and not isinstance(loop, Strand) and modules[0]._set_running_loop is _set_running_loop:
            for module in modules:
                module._set_running_loop = usual
            logging.getLogger("plait").warning("%s", _other_loop(loop))
        usual(loop)

    for module in modules:
        module._set_running_loop = _set_running_loop


def _other_loop(loop: Any) -> str:
    """What to say of it: where it is run, and what to write."""
    frame: Any = _getframe(2)
    places = []
    while frame is not None:
        file = frame.f_code.co_filename
        if not (is_librarys(file) or is_plaits(file)):
            places.append((file, f"{file}:{frame.f_lineno} in {frame.f_code.co_name}"))
        frame = frame.f_back
    users = next((place for file, place in places if not is_installed(file)), places[0][1] if places else "")
    if any("/uvicorn/" in file for file, _ in places):
        instead = 'uvicorn chooses it: write `--loop plait:new_event_loop`, or uvicorn.run(..., loop="plait:new_event_loop")'
    elif any("/uvloop/" in file for file, _ in places):
        instead = "write `asyncio.run(main())`, and neither `uvloop.run` nor `uvloop.install`"
    else:
        instead = "leave out the loop, loop factory or policy that the program names, or name `plait.new_event_loop`"
    kind = f"{type(loop).__module__}.{type(loop).__qualname__}"
    return f"plait does not serve this program, whose loop is {kind} (run at {users or 'an unknown place'}): {instead}"


def _set_policy() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)

        class Policy(asyncio.DefaultEventLoopPolicy):
            """asyncio's, with plait's loop."""

            def new_event_loop(self) -> asyncio.AbstractEventLoop:
                return new_event_loop()

        asyncio.set_event_loop_policy(Policy())


def _replace_function() -> None:
    def default() -> asyncio.AbstractEventLoop:
        """A new event loop, plait's."""
        return new_event_loop()

    default.__name__ = default.__qualname__ = "new_event_loop"
    asyncio.new_event_loop = asyncio.events.new_event_loop = default


def _have_interrupts_wait() -> None:
    """Have `asyncio.Runner` treat Ctrl-C as plait's does where the loop is plait's: never in the middle of a step."""
    on_sigint: Any = asyncio.Runner._on_sigint  # type: ignore[attr-defined]

    def _on_sigint(self: Any, signum: int, frame: Any, main_task: Any) -> None:
        handle = Runner._on_sigint if isinstance(self.get_loop(), ThreadStrand) else on_sigint
        handle(self, signum, frame, main_task)

    asyncio.Runner._on_sigint = _on_sigint  # type: ignore[attr-defined]
