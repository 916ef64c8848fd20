"""Numbers as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def duration(seconds: float | None) -> str:
    """Return a stretch of time: `85 ms`, `3.2 s`, `4m 05s`, `2h 03m`; nothing for None."""
    if seconds is None:
        return ""
    if seconds < 0.0005:
        return "<1 ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def size(amount: float) -> str:
    """Return an amount of bytes: `512 B`, `1.5 MiB`."""
    for unit in _UNITS[:-1]:
        if amount < 1023.5:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} {_UNITS[-1]}"


def count(number: int, one: str, many: str = "") -> str:
    """Return a number with its word: `1 run`, `3 runs`.

    Args:
        number: How many.
        one: The word for one.
        many: The word for others. Default: `one` and an s.
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def clock(at: float | None) -> str:
    """Return the local time of day: `14:03:59`."""
    return "" if at is None else datetime.fromtimestamp(at).astimezone().strftime("%H:%M:%S")


def moment(at: float | None) -> str:
    """Return the local date and time: `2026-01-31 14:03:59`."""
    return "" if at is None else f"{datetime.fromtimestamp(at).astimezone():%Y-%m-%d %H:%M:%S}"


def iso(at: float | None) -> str | None:
    """Return the time in UTC for programs: `2026-01-31T14:03:59.123Z`."""
    if at is None:
        return None
    text = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def plain_type(name: str) -> str:
    """Return the name of a class as people write it: without the module of well-known ones."""
    return name.removeprefix("builtins.").removeprefix("raflow.errors.")
