"""One row per product: how severe its complaints are."""

import pandas_amr as amr


def model(dbt, session):
    return amr.map_reduce(
        dbt.ref("stg_reviews"),
        map="How severe is the complaint (0 to 5)?",
        columns=["text"],
        finding={"severity": int, "is_complaint": bool},
        reduce={"severity": "mean", "is_complaint": "sum"},
        by="product",
        plan={"retry_failed_after": dbt.config.meta_get("retry_failed_after")},
    )
