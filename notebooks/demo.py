"""The main job on real text, with a model inside this process: no key, no network. `make demo` runs this."""

from __future__ import annotations

import pandas as pd
import reviews

import pandas_amr as amr


def main() -> None:
    df = reviews.sentences()
    raters = df.pop("score")  # kept aside: no model sees it
    print(
        f"{len(df)} sentences of {df['review'].nunique()} product reviews; the model is SmolLM2-135M, on this machine.\n"
    )

    result = df.amr.map_reduce(
        map="Classify the sentiment of the review sentence as positive or negative.",
        columns=["text"],
        finding={"sentiment": ["positive", "negative"]},
        reduce={"sentiment": "value_counts"},
        by="review",
        lm="local",
        progress=True,
    )

    pd.set_option("display.width", 120, "display.max_columns", None, "display.max_colwidth", 80)
    print("\nresult.frame.head(8): the rows, with the column that was found\n")
    print(result.frame.head(8))
    print("\nresult.output: a summary frame per review, counted by pandas\n")
    print(result.output)
    print("\nresult.usage: what it took\n")
    print(result.usage[["calls", "input_tokens", "output_tokens", "seconds"]])
    print(f"\n{result!r}")

    clear = raters.abs() > reviews.CLEAR
    agree = (result.frame["sentiment"] == "positive") == (raters > 0)
    told = f"{int(agree[clear].sum())} of the {int(clear.sum())} sentences that twenty raters judged clearly"
    print(f"\nAgreement with the raters' sign: {told}, as it is: this is a very small model.")
    print(f"pandas_amr {amr.__version__}, pandas {pd.__version__}")


if __name__ == "__main__":
    main()
