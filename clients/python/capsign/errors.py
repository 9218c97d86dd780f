"""The exceptions of a call.

Three outcomes are told apart:

* `Refused`: it did not and will not happen under this intent id.
* `Unavailable`: it did not happen; the same intent may be sent again.
* `Unknown`: it may or may not have happened. `signer.resolve(error)` turns it into done, refused
  or never.
"""

from __future__ import annotations

from typing import Any

from capsign.handle_selector import HandleSelector


class CapsignError(Exception):
    """A call without the result that was asked for.

    `reason` is a stable name of `capsign.types.v1.Reason` (without `REASON_`), `message` says what
    went wrong, `advice` what to do. `field` names the argument at fault or is empty; `retry_after`
    is in seconds, 0.0 if nothing was advised. `intent_id` is the 16-byte id of the intent
    concerned, empty if the call had none.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        advice: str = "",
        field: str = "",
        retry_after: float = 0.0,
        intent_id: bytes = b"",
        selector: HandleSelector | None = None,
    ) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.advice = advice
        self.field = field
        self.retry_after = retry_after
        self.intent_id = intent_id
        self.selector = selector
        """What the call asked for, so that `resolve(error)` needs no further argument."""

    def __reduce__(self) -> Any:
        # An exception's own way gives its text as the only argument: an error of a worker process
        # would end its pool.
        return type(self), (self.reason, self.message), self.__dict__

    def __str__(self) -> str:
        text = f"{self.reason}: {self.message}"
        return text if not self.advice or self.advice in self.message else f"{text} {self.advice}"


class Refused(CapsignError):  # noqa: N818  # named after the outcome that it states
    """It did not and will not happen under this intent id."""


class InvalidSignature(Refused):
    """The signature does not verify. Do not trust what it came with."""


class HandleNotChosen(Refused, ValueError):  # noqa: N818  # named after the outcome that it states
    """None of this socket's handles, or more than one, is what the arguments ask for. The message
    lists what there is.
    """


class Unavailable(CapsignError):  # noqa: N818  # named after the outcome that it states
    """It did not happen; the same intent may be sent again."""


class Unknown(CapsignError):  # noqa: N818  # named after the outcome that it states
    """It was sent, and it may or may not have happened. Call `signer.resolve(error)`, or sign again
    with `intent_id`.
    """
