"""What the models share."""

from pydantic import BaseModel, ConfigDict


class Shape(BaseModel):
    """A value of the API's. What a later API adds is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")
