"""The Dask engine: partitions are mapped by workers; plan, journal, limits and reduce stay here.

The driver plans, and sends each partition as one task. A worker maps it as a run of its own. Over
a connection to the driver it looks up what the journal has, reports what it finds twice a second,
and shares the limits and the budget of the run.
"""
