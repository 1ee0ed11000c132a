"""How publishing can fail, told apart by what is known to have happened on the Hub."""

from scanner.errors import CouldNotConclude, HubUnreachable


class PublishRefused(CouldNotConclude):
    """The Hub answered no: this step was not carried out."""


class RepositoryChanged(PublishRefused):
    """Between looking and writing, a branch moved or a thread ended; a fresh plan may succeed."""


class ReplyLost(HubUnreachable):
    """The request was sent and no usable answer came back: it may have been carried out."""


class OptedOut(CouldNotConclude):
    """The owner does not want to hear from us, which is respected."""


class DailyCapReached(CouldNotConclude):
    """Enough repositories of others were written to today."""
