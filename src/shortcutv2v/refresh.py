"""Refresh policies: for every frame of a video, decide whether the reference still serves.

A policy looks at one video, never at a batch: a `Stream` gives every row of a batch a copy of its own. It is asked
with a `Look` and answers with a truth value, or with a word that says why to refresh.
"""

from __future__ import annotations

import copy
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from shortcutv2v.errors import InputError, check_number, near_matches
from shortcutv2v.look import Look

__all__ = [
    "BothSides",
    "Every",
    "FromBoth",
    "Function",
    "Look",
    "RefreshPolicy",
    "as_policy",
    "from_recipe",
    "to_recipe",
]

DEFAULT_INTERVAL = 3

FromBoth = Literal["never", "refused", "always"]


class RefreshPolicy(ABC):
    """Base of the policies; subclass it as a dataclass to add one.

    The class name is the name under which `model.save()` stores a policy, together with its fields (those with
    `init=False` are state and are not stored). `shortcutv2v.load()` finds the class again if the module that defines
    it has been imported.

    Attributes:
        interval: the horizon: the largest number of frames from one refresh to the next. Streams refresh at this
            distance whatever the policy answers, and training draws distances below it.

    Raises:
        InputError: while defining a second policy of the same name.

    Examples:
        >>> from dataclasses import dataclass, field
        >>> @dataclass
        ... class Doubling(RefreshPolicy):
        ...     interval: int = 8
        ...     due: int = field(default=1, init=False)
        ...     def __call__(self, look: Look) -> bool:
        ...         if look.distance < self.due:
        ...             return False
        ...         self.due *= 2
        ...         return True
        ...     def reset(self) -> None:
        ...         self.due = 1
        >>> as_policy(Doubling(interval=4))
        Doubling(interval=4, due=1)
    """

    known: ClassVar[dict[str, type[RefreshPolicy]]] = {}
    guarded: ClassVar[bool] = False
    """True if the policy itself sees when a frame is too far from its reference, so that no warning is needed."""
    audits: ClassVar[bool] = False
    """True if the policy wants to know what the predictions of refreshed frames, at which it looked, were worth."""
    from_both: ClassVar[FromBoth] = "never"
    """Frames that look-ahead predicts from the references before and after them instead of the nearer one: those near
    which the policy refuses what is made of one, with the word "estimate", or all."""
    interval: int

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        other = RefreshPolicy.known.get(cls.__name__)
        if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise InputError(
                f"there is a refresh policy named {cls.__name__} already, in {other.__module__}: "
                "give the new class another name, because policies are saved by it"
            )
        RefreshPolicy.known[cls.__name__] = cls

    @abstractmethod
    def __call__(self, look: Look) -> bool | str:
        """Return whether to refresh at this frame, or a word that says why.

        The first frame of a video, and the first of a new size, is always a refresh; the policy is not asked.
        """

    def reset(self) -> None:  # noqa: B027  (most policies have no state)
        """Forget the video: a new one begins."""

    @property
    def gap(self) -> int:
        """Frames from one reference to the next where frames are predicted from both: twice as far as from one."""
        return 2 * self.interval - 1

    def audit(self, look: Look, psnr: float) -> None:  # noqa: B027  (most policies do not ask)
        """Take the result of an audit: the PSNR in dB that the prediction has to the teacher's own output."""

    @property
    def estimates(self) -> Sequence[float]:
        """PSNR in dB that the latest shortcut frames should have; empty if the policy estimates none."""
        return ()

    def note(self) -> str:
        """Return what the policy has to say about the video so far; empty if nothing."""
        return ""


@dataclass
class Every(RefreshPolicy):
    """Refresh every `interval` frames (Algorithm 1; the paper's alpha).

    Raises:
        InputError: `interval` is no whole number of at least 1.

    Examples:
        >>> policy = Every(3)
        >>> [policy(Look(distance, None)) for distance in (1, 2, 3)]
        [False, False, True]
    """

    interval: int = DEFAULT_INTERVAL

    def __post_init__(self) -> None:
        check_number("interval", self.interval, 1, whole=True)

    def __call__(self, look: Look) -> bool:
        """Return whether the distance has reached the interval."""
        return look.distance >= self.interval


@dataclass
class BothSides(Every):
    """Predict every frame from the references before and after it, where the whole video is at hand.

    The references lie 2 `interval` - 1 frames apart, as `LookAhead` places them for `Every(interval)`. They are
    mixed place by place, see `ShortcutBlock.analyse_both`; a frame takes longer. A causal stream has no reference after
    a frame: there, this is `Every(interval)`.

    Raises:
        InputError: `interval` is no whole number of at least 1.

    Examples:
        >>> BothSides(4).gap
        7
    """

    from_both: ClassVar[FromBoth] = "always"


@dataclass
class Function(RefreshPolicy):
    """A function of the user's as a policy, with its horizon beside it.

    `model.save()` stores the horizon only: a loaded model refreshes every `interval` frames, with a warning, until
    `model.refresh` is set again.

    Args:
        function: called with a `Look`; see `RefreshPolicy.__call__`. Every stream works with a deep copy of an object
            that can be called, and calls the object's `reset()` if it has one.
        interval: the horizon.

    Examples:
        >>> moved = Function(lambda look: look.distance > 1, interval=6)
        >>> moved(Look(2, None))
        True
    """

    function: Callable[[Look], bool | str]
    interval: int

    def __post_init__(self) -> None:
        check_number("interval", self.interval, 1, whole=True)

    def __call__(self, look: Look) -> bool | str:
        """Ask the function."""
        return self.function(look)

    def reset(self) -> None:
        """Reset the wrapped object, if it can be reset."""
        getattr(self.function, "reset", lambda: None)()


def as_policy(
    refresh: object,
    max_interval: int | None = None,
    usual: int = DEFAULT_INTERVAL,
) -> RefreshPolicy:
    """Return the policy that was meant.

    Args:
        refresh: a policy, an interval, a function, or None for an interval of `max_interval`.
        max_interval: the horizon of a function. Beside anything else it must agree with it.
        usual: the interval, or a function's horizon, if neither argument gives one.

    Raises:
        InputError: `refresh` is none of these, an interval is below 1, or both arguments name different intervals.

    Examples:
        >>> as_policy(6), as_policy(None, max_interval=4)
        (Every(interval=6), Every(interval=4))
    """
    if max_interval is not None:
        check_number("max_interval", max_interval, 1, whole=True)
    horizon = usual if max_interval is None else max_interval
    if refresh is None:
        return Every(horizon)
    if isinstance(refresh, int):
        check_number("refresh", refresh, 1, whole=True)
        policy: RefreshPolicy = Every(refresh)
    elif isinstance(refresh, RefreshPolicy):
        policy = refresh
        check_number(f"the interval of {policy!r}", policy.interval, 1, whole=True)
    elif callable(refresh) and not isinstance(refresh, type):
        return Function(refresh, getattr(refresh, "interval", horizon) if max_interval is None else horizon)
    else:
        raise InputError(
            f"refresh={refresh!r}: expected an interval such as 3, a policy such as Every(3), or a callable "
            "policy(look) -> bool"
        )
    if max_interval not in (None, policy.interval):
        raise InputError(
            f"max_interval={max_interval} and refresh={refresh!r} name different intervals: give one of the two"
        )
    return policy


def reason_of(policy: RefreshPolicy, look: Look) -> str:
    """Ask a policy whether to refresh; return its word, "policy" or "distance", or nothing for a shortcut frame.

    Examples:
        >>> reason_of(Every(3), Look(2, None)), reason_of(Every(3), Look(3, None))
        ('', 'distance')
    """
    found = policy(look)
    if not (found and isinstance(found, str)):
        found = "distance" if look.distance >= policy.interval else "policy" if found else ""
    look.reason = found
    return found


def own_copy(policy: RefreshPolicy) -> RefreshPolicy:
    """Return a copy of `policy` that begins a video."""
    own = copy.deepcopy(policy)
    own.reset()
    return own


def to_recipe(policy: RefreshPolicy) -> dict[str, Any]:
    """Return a policy as JSON-ready values; the reverse is `from_recipe`.

    Examples:
        >>> to_recipe(Every(4))
        {'name': 'Every', 'interval': 4}
    """
    if isinstance(policy, Function):
        named = getattr(policy.function, "__name__", type(policy.function).__name__)
        return {"name": Function.__name__, "interval": policy.interval, "function": named}
    known = dataclasses.is_dataclass(policy)
    declared: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(policy) if known else ()  # type: ignore[arg-type]
    fields = {field.name: getattr(policy, field.name) for field in declared if field.init}
    return {"name": type(policy).__name__, **fields}


def from_recipe(saved: Mapping[str, Any]) -> tuple[RefreshPolicy, str | None]:
    """Return the policy that `to_recipe` stored, and a warning if it could not store all of it.

    Raises:
        InputError: no such policy is known, or its fields are not those that were stored.
    """
    fields = dict(saved)
    name = fields.pop("name", None)
    if name == Function.__name__:
        policy = Every(fields.get("interval", DEFAULT_INTERVAL))
        return policy, (
            f"the model was saved with the refresh function {fields.get('function')!r}, which cannot be stored: it "
            f"refreshes every {policy.interval} frames until you set model.refresh"
        )
    if name not in RefreshPolicy.known:
        hint = ", ".join(near_matches(str(name), RefreshPolicy.known) or RefreshPolicy.known)
        raise InputError(f"no refresh policy {name!r} (known: {hint}): import the module that defines it first")
    try:
        return RefreshPolicy.known[name](**fields), None
    except TypeError as error:
        raise InputError(f"the refresh policy {name} does not take what was stored: {error}") from None
