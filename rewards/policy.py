"""The settlement policy: what a period pays, in which currency, and what becomes of the commons. Computes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rewards.errors import PolicyError


class Policy(BaseModel):
    """How a period is paid out; frozen, and unknown fields are refused.

    Attributes:
        pool: what is paid in all, in minor units of the currency (cents), > 0.
        currency: three capital letters, as in ISO 4217.
        minor_digits: decimal places of the currency, 0 to 4.
        commons: `retain`: the commons is paid like an account and the consortium's treasury keeps it;
            `distribute`: its part goes to the clients in proportion to their credit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    pool: Annotated[int, Field(gt=0)]
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    minor_digits: Annotated[int, Field(ge=0, le=4)] = 2
    commons: Literal["retain", "distribute"] = "retain"

    @classmethod
    def from_mapping(cls, document: Any, source: str = "policy") -> Policy:
        """A policy from plain data.

        Raises:
            PolicyError: names the source, and each field that is missing, unknown or out of its range.
        """
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, fault['loc'])) or 'document'}: {fault['msg']}" for fault in error.errors()
            )
            raise PolicyError(f"{source}: {faults}") from error


def load_policy(path: str | Path) -> Policy:
    """The policy in a YAML file.

    Raises:
        PolicyError: the file cannot be read, is not YAML, or is not a policy; names the file and the field.
    """
    try:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise PolicyError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    return Policy.from_mapping(document, source=str(path))
