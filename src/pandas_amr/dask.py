"""``import pandas_amr.dask`` registers ``ddf.amr`` of Dask frames (``pandas-amr[dask]``).

``import pandas_amr`` alone imports nothing of Dask. The functions take Dask frames without this:
``amr.map(ddf, ...)``.
"""

from __future__ import annotations

try:
    import dask.dataframe as dd
    import distributed as _distributed  # noqa: F401 (whose workers map the partitions)
except ImportError as error:
    raise ImportError(
        f'pandas_amr.dask needs {error.name!r}: pip install "pandas-amr[dask]".', name=error.name
    ) from None
from dask.dataframe.extensions import register_dataframe_accessor

from pandas_amr._api.dask_accessor import DaskAccessor

__all__: list[str] = []

if not hasattr(dd.DataFrame, "amr"):  # once: reloading does not warn
    register_dataframe_accessor("amr")(DaskAccessor)
