"""What to mend first about each product, written by an agent from what was found."""

import pandas_amr as amr


def model(dbt, session):
    complaints = amr.as_frame(dbt.ref("complaints")).query("is_complaint == True")
    advice = amr.reduce(
        complaints[["product", "part", "severity"]],
        "What should be mended first?",
        output=str,
        by="product",
    )
    return advice.reset_index()
