"""Claim: one wait for the first of several waiters, of which exactly one happens.

A task that waits for one thing needs no claim: what it waits for decides. Who waits for several makes a claim, which is
the sleeper (`_sleeper`) of its branches, the waiters that share it. So it costs a waiter nothing, not a slot, until it is
used.

Ownership and invariants
    C1  `_open` has one entry, and who pops it decides what happens (`list.pop`): who grants a value to a branch, on any
        thread, before it gives anything away; the strand, for a branch that is woken without a value (an event, a
        finished task), or for a cancel.
    C2  `winner` is written once, by who decided: the branch, or the claim itself for a cancel.
    C3  All else belongs to the holder of the turn of the task's strand (W1). A branch is woken there, by its own `_run`,
        and the claim with it if the branch is the winner. All others are abandoned in the same turn, and leave no trace.
    C4  A cancel that finds it decided doesn't abandon the wait: the winner is on its way. The cancel is raised when that
        is there, and what was granted is handed on.
"""

from __future__ import annotations

from typing import Any

from plait._rt.task.waiter import PENDING, Waiter


class Claim(Waiter):
    """`await Claim(a, b)` waits for the first of fresh waiters, in that order, and returns it and what it returns."""

    __slots__ = ("_branches", "_open", "winner")
    what = "plait.select"

    def __init__(self, *branches: Waiter) -> None:
        super().__init__()
        self._branches = branches
        self._open = [None]
        self.winner: Waiter | None = None

    @property
    def _strand(self) -> Any:
        return self._sleeper._strand

    def take(self, branch: Waiter) -> bool:
        """Decide that branch happens; False if it is decided (C1). From any thread."""
        try:
            self._open.pop()
        except IndexError:
            return False
        self.winner = branch
        return True

    # The holder of the strand's turn

    def _enrol(self) -> None:
        for branch in self._branches:
            if not self._open:  # decided
                return
            branch._state = PENDING
            branch._sleeper = self
            branch._enrol()

    def _wake(self, branch: Waiter) -> None:
        if self.winner is branch or self.take(branch):
            self._run()

    def _run(self) -> None:
        self._abandon_branches()
        super()._run()

    def _abandon(self) -> bool:
        return self._state == PENDING and self.take(self) and super()._abandon()

    def _withdraw(self) -> None:
        self._abandon_branches()

    def _abandon_branches(self) -> None:
        for branch in self._branches:
            if branch is not self.winner:
                Waiter._abandon(branch)  # (what a Join does about its task is for who waits for nothing else)

    def _hand_on(self) -> None:
        if self.winner is not None and self.winner is not self:
            self.winner._hand_on()

    def _collect(self) -> Any:
        winner = self.winner
        assert winner is not None
        return winner, winner._collect()
