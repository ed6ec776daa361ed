"""The registry of formats: which public layouts of rows are read, and how a layout is recognised."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence

from ..errors import RecordError, SettingsError, nearest
from .fields import Row, shortened
from .format_types import Format, Options
from .formats_attributes import ATTRIBUTED, RATED_LIST
from .formats_beliefs import BELIEFS
from .formats_compared import COMPARED
from .formats_native import NATIVE
from .formats_pairs import PAIRS
from .formats_rated import RATED
from .formats_single import SINGLE

# The order is that of recognition: a layout comes before those that would also accept its rows.
FORMATS: dict[str, Format] = {
    f.name: f for f in (NATIVE, BELIEFS, *COMPARED, *ATTRIBUTED, *PAIRS, *RATED, RATED_LIST, *SINGLE)
}

EXTRA_COLUMNS = (
    "system", "tools", "source", "group", "user", "intent", "x_con", "weight", "margin", "scores", "attributes",
    "score_chosen", "score_rejected", "safer_response_id", "rankings", "conversations", "response", "history", "input",
)  # fmt: skip
COLUMNS = frozenset([*EXTRA_COLUMNS, *(name for f in FORMATS.values() for name in f.needs)])


def named_format(name: str) -> Format:
    """The format of that name; raises SettingsError with the nearest one."""
    if name not in FORMATS:
        known = ", ".join(FORMATS)
        raise SettingsError(f'unknown format "{name}".{nearest(name, FORMATS)}', remedy=f"Known formats: {known}.")
    return FORMATS[name]


def recognise(row: Row) -> Format | None:
    """The first format whose recogniser accepts the row."""
    return next((f for f in FORMATS.values() if f.recognise(row)), None)


def recognise_most(rows: Iterable[Row]) -> Format | None:
    """The format that most of the rows have, so that one odd row does not decide for a file."""
    votes = Counter(f.name for f in map(recognise, rows) if f is not None)
    return FORMATS[votes.most_common(1)[0][0]] if votes else None


def unrecognised(row: Row) -> RecordError:
    """The error for a row that no format accepts: its fields, and what the nearest format needs besides."""
    fields = list(map(str, row))
    found = shortened(", ".join(fields)) or "none"
    # native rows come from us alone; the later, plainer format wins among equals
    best = max(reversed([f for f in FORMATS.values() if f is not NATIVE]), key=lambda f: _likeness(fields, f.needs))
    lacking = [name for name in best.needs if name not in fields]
    if _likeness(fields, best.needs) < 0.4:
        why = ""
    elif lacking:
        why = f'; nearest is "{best.name}", which needs {" and ".join(lacking)}'
    else:
        why = f'; nearest is "{best.name}", whose fields hold other types ({best.describe})'
    return RecordError(
        f"no known format fits the fields {found} (tried {len(FORMATS)}{why}).",
        remedy="Name the columns (--columns prompt=question,chosen=best) or the format (--format).",
    )


def _likeness(fields: Sequence[str], needs: Sequence[str]) -> float:
    """How much of `needs` the fields cover, similar spellings counting for their similarity."""
    covered = (max((difflib.SequenceMatcher(None, f, n).ratio() for f in fields), default=0.0) for n in needs)
    return sum(c if c > 0.6 else 0.0 for c in covered) / len(needs)


def check_options(form: Format, options: Options, row: Row) -> None:
    """Raises SettingsError where the format lacks a choice only a person can make, or does not know the one made."""
    orders = form.orders(row) if callable(form.orders) else form.orders
    if options.by is not None and options.by not in orders:
        known = ", ".join(orders) or "none"
        raise SettingsError(
            f'the format "{form.name}" cannot order responses by "{options.by}".{nearest(options.by, orders)}',
            remedy=f"Known orders: {known}.",
        )
    if form.groups is None:
        if options.group is not None:
            raise SettingsError(f'the format "{form.name}" has no groups to choose "{options.group}" from.')
        return
    names = form.groups(row)
    listed = ", ".join(names)
    if options.group is None:
        raise SettingsError(
            f"the rows hold one response per group ({listed}) and do not say whose is preferred.",
            remedy='Name the group (--group NAME), or "all" for each group in turn.',
        )
    if options.group != "all" and names and options.group not in names:
        raise SettingsError(f'no group "{options.group}" in the rows.{nearest(options.group, names)} Groups: {listed}.')
