"""What the operator API tells of calibrations: how far what a bundle pays is from Shapley values."""

from typing import Literal

from pydantic import ConfigDict, Field, JsonValue

from attribution.evaluation.calibration_report import CalibrationReport
from deployment.schemas.bases import Answer
from deployment.schemas.fields import Count, Moment


def _figure(value: float | None, n: int, low: float | None = None, high: float | None = None) -> JsonValue:
    return {"value": value, "n": n, "low": low, "high": high}


_REPORT: dict[str, JsonValue] = {
    "consortium": "hospital-net",
    "model_sha256": "ab" * 32,
    "manifest_sha256": "cd" * 32,
    "method": "credit",
    "attribution_version": "2",
    "tolerance": 0.02,
    "dtype": "float32",
    "clients": 4,
    "truth": "exact",
    "permutations": None,
    "prompts_sha256": "ef" * 32,
    "max_new_tokens": 64,
    "responses": 60,
    "least_gain": 1.0,
    "small_gains": 4,
    "without_shares": 0,
    "figures": {
        "distance": _figure(0.028, 56, 0.021, 0.036),
        "distance_p95": _figure(0.07, 56),
        "correlation": _figure(0.997, 224),
        "completeness_error": _figure(0.006, 56, 0.004, 0.008),
        "largest_difference": _figure(0.11, 224),
        "settled_distance": _figure(0.009, 60),
        "small_gains_commons": _figure(0.95, 4),
        "truth_error": _figure(None, 0),
    },
    "version": "1.0.0",
    "finished": "2026-11-27T12:00:00+00:00",
}


class Calibration(Answer):
    """A calibration as it was written into the books, where the signed log covers it.

    Its leaf is that of an event of the kind `calibration`; the subject is the consortium, the document is the report.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "object": "calibration",
                    "sequence": 17,
                    "booked_at_us": 1790000000000000,
                    "booked_by": "command line",
                    "salt": "01" * 32,
                    "once": "calibration:" + "23" * 32,
                    "report": _REPORT,
                }
            ]
        }
    )

    object: Literal["calibration"] = "calibration"
    sequence: Count = Field(description="The number of its event, to prove that it is in the log.")
    booked_at_us: Moment
    booked_by: str
    salt: str = Field(description="Of its event, whose leaf in the log it keeps from being guessed.")
    once: str = Field(description="Of its event: the same is not found twice.")
    report: CalibrationReport = Field(description="What was found, as whoever measured it had it written.")
