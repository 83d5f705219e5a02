"""Another question, asked of new reviews only, and of those that have failed so far."""

import pandas_amr as amr


def model(dbt, session):
    dbt.config(materialized="incremental", unique_key="id")
    reviews = dbt.ref("stg_reviews")
    if dbt.is_incremental:
        done = f"select id from {dbt.this} where amr_status <> 'failed'"
        reviews = reviews.filter(f"id not in ({done})")
    return amr.map(
        reviews,
        "Is the customer angry?",
        columns=["text"],
        finding={"angry": bool},
        plan={"status": True, "retry_failed_after": dbt.config.meta_get("retry_failed_after")},
    )
