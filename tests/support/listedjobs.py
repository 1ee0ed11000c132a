"""Light jobs that answer for the commit which the listing has shown, held against the head that ``org/base`` has."""

from collections.abc import Callable

from lightjobs import scanned

from pipelines.engines.seam import Answer, ScanJob
from pipelines.fleet_job import FleetSetup
from scanner.errors import RepoUnavailable
from scanner.hub import Hub
from scanner.refs import parse_spec


def prepare(setup: FleetSetup) -> Callable[[ScanJob], Answer]:
    """Return the work."""

    def work(job: ScanJob) -> Answer:
        pins = {job.repo_id: str(job.listed)}
        if job.described.get("base_models") and "org/base" in job.described["base_models"]:
            hub = Hub(setup.endpoint, attempts=1)
            try:
                pins["org/base"] = str(hub.resolve(parse_spec("org/base")).revision)
            except RepoUnavailable:
                pins.pop("org/base", None)
        return scanned(job, revision=str(job.listed), pins=pins)

    return work
