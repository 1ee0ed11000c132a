"""The options of the commands that read clean samples."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from pipelines.purify.data import DataSpec

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--text-column", metavar="NAME", help="The column of texts or pictures; found by its name when absent."
    ),
    click.option("--label-column", metavar="NAME", help="The column of labels; found by its name when absent."),
    click.option(
        "--label-map",
        "label_map",
        multiple=True,
        metavar="LABEL=CLASS",
        help="Which class of the model a label of the data means. Repeat it.",
    ),
    click.option("--data-split", metavar="NAME", help="Split of a dataset on the Hub; train when it has one."),
    click.option("--data-config", metavar="NAME", help="Configuration of a dataset on the Hub that has several."),
)


def data_options(command: Command) -> Command:
    """Add the options that say how ``--data`` is read."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def data_spec(source: str, most: int, named: dict[str, Any]) -> "DataSpec":
    """Return what the options say; takes its own out of ``named``.

    Raises:
        BadReference: ``--label-map`` is no pair.
    """
    from pipelines.purify.data import DataSpec, parse_label_map

    return DataSpec(
        source=source,
        text_column=named.pop("text_column"),
        label_column=named.pop("label_column"),
        label_map=parse_label_map(named.pop("label_map")),
        split=named.pop("data_split"),
        config=named.pop("data_config"),
        most=most,
    )
