"""What each review complains of, with the status of each row."""

from datetime import date
from typing import Literal

import pandas_amr as amr

FINDING = {
    "is_complaint": bool,
    "severity": int,
    "part": Literal["switch", "leg", "lid", "none"],
    "said_on": date | None,
    "quotes": list[str],
}


def model(dbt, session):
    dbt.config(materialized="table")
    return amr.map_reduce(
        dbt.ref("stg_reviews"),
        map="Does the review complain, of which part, and how severe is it (0 to 5)?",
        columns=["product", "text"],
        finding=FINDING,
        reduce={"severity": "mean"},
        plan={"status": True, "retry_failed_after": dbt.config.meta_get("retry_failed_after")},
    )
