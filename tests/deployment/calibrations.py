"""Calibrations as an operator's command books them, of models that nobody has to load."""

from typing import Any

from attribution.evaluation.calibration_report import CalibrationReport
from deployment.schemas.calibrations import Calibration
from rewards.ledger.ledger import Ledger
from rewards.store import calibrations

_EXAMPLE: Any = Calibration.model_config["json_schema_extra"]


def report_of(consortium: str, model_sha256: str, **changes: Any) -> CalibrationReport:
    """The report of the schema's example, of this model and with these fields."""
    document = _EXAMPLE["examples"][0]["report"] | {"consortium": consortium, "model_sha256": model_sha256} | changes
    return CalibrationReport.model_validate(document)


def book_report(ledger: Ledger, report: CalibrationReport) -> int:
    """Write a report into the books; the number of its event."""
    with ledger.database.write() as connection:
        document = report.model_dump(mode="json")
        return calibrations.book(connection, report.consortium, document, report.identity, "command line")[0]
