"""Writes the JSON Schema of the report format: ``python -m reports.schema``.

The file is generated from the types, committed, and compared in the tests, so that a change of the format is always
a visible change of this file.
"""

import json
from pathlib import Path

from reports.json_v1 import json_schema

SCHEMA_FILE = Path(__file__).with_name("schemas") / "audit-report.v1.json"


def schema_text() -> str:
    """Return the schema as it is committed."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def write_schema(target: Path = SCHEMA_FILE) -> None:
    """Write the schema to its place in the package."""
    target.write_text(schema_text(), encoding="utf-8")


if __name__ == "__main__":  # pragma: no cover - a test that ran this would mend the file it is to compare
    write_schema()
