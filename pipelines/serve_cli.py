"""``hubaudit serve``: listens to webhooks of the Hub."""

import logging
import os
import sys
from pathlib import Path

import click

from pipelines.command import ends_with_a_sentence, open_hub
from pipelines.settings import load_settings

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; put a TLS proxy in front.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 picks a free one.")
@click.option("--queue", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Where jobs are kept.")
@click.option(
    "--publish",
    "form",
    type=click.Choice(("none", "section", "pr", "discussion")),
    default="none",
    show_default=True,
    help="What to write on the Hub after a new commit; severe findings are never published.",
)
@click.option("--bot", metavar="NAME", help="User that comments speak to (`@NAME audit`); the token's by default.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Audits at a time.")
@click.option("--queue-size", type=click.IntRange(min=1), default=1000, show_default=True, help="Audits that may wait.")
@click.option("--timeout", type=click.FloatRange(min=1), default=3600, show_default=True, help="Seconds for one audit.")
@click.option("--secret-file", type=FILE, help="File with the webhook's secret; else HUBAUDIT_WEBHOOK_SECRET.")
@click.option("--allow", type=FILE, metavar="FILE", help="As in `publish`.")
@click.option("--opt-out", type=FILE, metavar="FILE", help="As in `publish`.")
@click.option("--daily-cap", type=click.IntRange(min=0), default=20, show_default=True, help="As in `publish`.")
@ends_with_a_sentence
def serve(
    host: str,
    port: int,
    queue: Path | None,
    form: str,
    bot: str | None,
    workers: int,
    queue_size: int,
    timeout: float,
    secret_file: Path | None,
    allow: Path | None,
    opt_out: Path | None,
    daily_cap: int,
) -> None:
    """Listen to webhooks of the Hub: audit each new commit on main, and whenever a comment says `@bot audit`.

    Create the webhook in the Hub's settings with the scopes repo and discussion, this server's address followed by
    /webhook, and a secret. /health and /metrics tell how the server is doing. What was accepted is kept in a file and
    survives a restart.

    \b
    Example:
      HUBAUDIT_WEBHOOK_SECRET=... HF_TOKEN=... hubaudit serve --publish pr --opt-out never.txt
    """
    from pipelines.publish import Publisher
    from pipelines.publishing.consent import RepoList, read_list
    from pipelines.publishing.diary import Diary
    from pipelines.publishing.planner import Etiquette

    try:
        from pipelines.serve import ServeSettings
        from pipelines.serve import serve as run
    except ModuleNotFoundError as error:
        raise click.UsageError(f"{error.name} is not installed; install hubaudit[server].") from None
    settings = load_settings()
    secret = secret_file.read_text(encoding="utf-8").strip() if secret_file else settings.webhook_secret
    if not secret:
        raise click.UsageError("a webhook needs a secret: set HUBAUDIT_WEBHOOK_SECRET, or give --secret-file.")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    etiquette = Etiquette(
        allowed=read_list(allow) if allow else None, opted_out=read_list(opt_out) if opt_out else RepoList()
    )
    diary = Diary(settings.state_folder / "published.json", cap=daily_cap)
    run(
        ServeSettings(
            host=host,
            port=port,
            queue=queue or settings.state_folder / "queue.sqlite",
            reports=(queue.parent if queue else settings.state_folder) / "reports",
            secret=secret,
            bot=bot,
            form=form,
            workers=workers,
            queue_size=queue_size,
            timeout_seconds=timeout,
        ),
        Publisher(open_hub(), diary=diary, etiquette=etiquette),
        os.environ,
        sys.stdout,
    )
