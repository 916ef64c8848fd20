"""What calling a task inside a flow returns: something to pass on, and to wait for."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, NoReturn, TypeVar, overload

from raflow import errors
from raflow.define._misuse import NotAValue, refuse_uses
from raflow.define._requests import FlowContext, active_flow
from raflow.model import State, TaskRunKey

if TYPE_CHECKING:
    from typing import Self

    # Type checkers let a subclass of Any stand where any other type is wanted, and that is what a
    # future does: `load(extract())` is right although `load` takes a table.
    _Anything = Any
else:
    _Anything = object

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")


class BaseFuture(NotAValue, _Anything):  # type: ignore[misc]  # see `_Anything`
    """What both kinds of future have in common."""

    __slots__ = ("_context", "_item", "_key", "_line", "_map", "_name", "_node")

    _item: int | None
    _map: MapFuture[Any] | None
    """For the future of an item: keeps the future of the map alive, which tells of its end."""

    def __init__(
        self,
        context: FlowContext,
        node: int,
        key: str,
        name: str,
        line: str,
        item: int | None = None,
        *,
        of: MapFuture[Any] | None = None,
    ) -> None:
        self._context = context
        self._node = node
        self._key = key
        self._name = name
        self._line = line
        self._item = item
        self._map = of

    @property
    def key(self) -> str:
        """What the call is named in the graph, such as `extract-0` or `extract-0[7]`."""
        return self._key if self._item is None else f"{self._key}[{self._item}]"

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the run (of a map: every item) is over, well or not.

        Args:
            timeout: Seconds to wait at most. Default: as long as it takes.

        Returns:
            Whether it is over.
        """
        return self._context.wait(self._node, self._item, timeout=timeout)

    def done(self) -> bool:
        """Return whether the run (of a map: every item) is over, without waiting."""
        return self.wait(timeout=0)

    def cancel(self) -> None:
        """Ask that the run (of a map: every item) be cancelled; returns at once.

        What has not begun never begins. What runs is interrupted, and ended by force if it does not
        end within the grace period. What is over stays as it is. `wait` waits for the end, which is
        then CANCELLED; tasks that need the value are not run, and a flow that does not handle that
        fails.
        """
        self._context.cancel(self._node, self._item)

    def __del__(self) -> None:
        if self._map is None:
            try:  # noqa: SIM105 - a `with` would take longer than all the rest
                self._context.drop(self._node)
            except Exception:  # noqa: S110 - Python could only print it, and nothing is lost
                pass

    async def _awaited(self) -> Any:
        # Holds on to the future while it is awaited: it may be that nobody else does.
        return await self._context.result_async(self._node, self._item)

    def __hash__(self) -> int:
        return hash((self._node, self._item))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BaseFuture):
            self._refuse("in a comparison")
        mine = (self._node, self._item)
        return self._context is other._context and mine == (other._node, other._item)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise errors.FutureUsedAsValueError(
            f"{self._described} is inside an object that raflow cannot look into, so its value "
            "cannot be put in its place. Pass the future itself as an argument, or inside a list, "
            "tuple, dict, set, dataclass or pydantic model."
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key}>"


class TaskFuture(BaseFuture, Generic[R_co]):
    """The coming value of one task call.

    Pass it to other tasks, at any depth inside lists, tuples, dicts, sets, dataclasses and pydantic
    models: they get the value. Call `result` (or `await` the future) to have the value in the flow
    itself. Anything else that needs the value raises `FutureUsedAsValueError`.
    """

    __slots__ = ()

    @property
    def _described(self) -> str:  # type: ignore[override]  # a property serves as well
        return f"The future of task {self._name!r} (called at {self._line})"

    @property
    def state(self) -> State:
        """Where the task run stands now."""
        return self._context.state(_run_key(self._node, self._item))

    @overload
    def result(
        self, timeout: float | None = None, raise_on_failure: Literal[True] = True
    ) -> R_co: ...

    @overload
    def result(
        self, timeout: float | None = None, *, raise_on_failure: bool
    ) -> R_co | BaseException: ...

    def result(
        self, timeout: float | None = None, raise_on_failure: bool = True
    ) -> R_co | BaseException:
        """Wait for the value and return it.

        Args:
            timeout: Seconds to wait at most. Default: as long as it takes.
            raise_on_failure: If the run failed, raise its exception (True, the default) or return
                it (False).

        Raises:
            TimeoutError: The value did not come in time.
            Exception: What the task raised, or a `TaskRunError` that says why there is no value.
        """
        return self._context.result(  # type: ignore[no-any-return]  # a user's value
            self._node, self._item, timeout=timeout, raise_on_failure=raise_on_failure
        )

    def __await__(self) -> Generator[Any, Any, R_co]:
        return self._awaited().__await__()


class MapFuture(BaseFuture, Generic[R_co]):
    """The coming values of a mapped call, one per item.

    Pass it whole to a task, which gets the list of values; map over it, and each item follows its
    own item; take items out by index, slice or loop.
    """

    __slots__ = ("_length",)

    def __init__(
        self,
        context: FlowContext,
        node: int,
        key: str,
        name: str,
        line: str,
        length: int | None = None,
    ) -> None:
        super().__init__(context, node, key, name, line)
        self._length = length

    @property
    def _described(self) -> str:  # type: ignore[override]  # a property serves as well
        return f"The mapped future of task {self._name!r} (called at {self._line})"

    @property
    def known_length(self) -> int | None:
        """Number of items; None if it depends on values to come, or on an iterator to end.

        `len` waits for it.
        """
        return self._length

    @property
    def states(self) -> list[State]:
        """Where the task run of each item stands now; waits until their number is known."""
        return [self._context.state(TaskRunKey(self._node, i)) for i in range(len(self))]

    @overload
    def result(
        self, timeout: float | None = None, raise_on_failure: Literal[True] = True
    ) -> list[R_co]: ...

    @overload
    def result(
        self, timeout: float | None = None, *, raise_on_failure: bool
    ) -> list[R_co | BaseException]: ...

    def result(
        self, timeout: float | None = None, raise_on_failure: bool = True
    ) -> list[R_co] | list[R_co | BaseException]:
        """Wait for all values and return them in order; see `TaskFuture.result`."""
        return self._context.result(  # type: ignore[no-any-return]  # a user's values
            self._node, None, timeout=timeout, raise_on_failure=raise_on_failure
        )

    def __await__(self) -> Generator[Any, Any, list[R_co]]:
        return self._awaited().__await__()

    def __len__(self) -> int:
        """Return the number of items; waits until it is known."""
        if self._length is None:
            self._length = self._context.length(self._node)
        return self._length

    def __iter__(self) -> Iterator[TaskFuture[R_co]]:
        return (self._at(i) for i in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> TaskFuture[R_co]: ...

    @overload
    def __getitem__(self, index: slice) -> list[TaskFuture[R_co]]: ...

    def __getitem__(self, index: int | slice) -> TaskFuture[R_co] | list[TaskFuture[R_co]]:
        positions = range(len(self))
        if isinstance(index, slice):
            return [self._at(i) for i in positions[index]]
        try:
            return self._at(positions[index])
        except IndexError:
            raise IndexError(
                f"{self._described} has {len(positions)} items, so there is no item {index}."
            ) from None

    def _at(self, item: int) -> TaskFuture[R_co]:
        return TaskFuture(
            self._context, self._node, self._key, self._name, self._line, item, of=self
        )


refuse_uses(TaskFuture, container=True)
refuse_uses(MapFuture, container=False)


class Unmapped(NamedTuple):
    """A value that every item of a map gets as it is."""

    value: Any


class AllowFailure(NamedTuple):
    """A future, or values with futures inside, whose failure does not hold up the task."""

    value: Any


def unmapped(value: T) -> T:
    """Give every item of a map the same value, even if that is a list.

    ```python
    extract.map(regions, day=unmapped(day))
    ```
    """
    return Unmapped(value)  # type: ignore[return-value]  # stands for the value in a `map`


def allow_failure(value: T) -> T:
    """Let a task run even if this input fails: it then gets the exception as value.

    Args:
        value: A future, or anything with futures inside.

    ```python
    report(allow_failure(extract(region)))
    ```
    """
    if active_flow.get() is None:
        return value
    return AllowFailure(value)  # type: ignore[return-value]  # stands for the value in a call


def _run_key(node: int, item: int | None) -> TaskRunKey:
    return TaskRunKey(node) if item is None else TaskRunKey(node, item)
