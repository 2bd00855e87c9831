"""Analysis on a Dask cluster: the same functions, run by workers.

What stages one and two make of a run is too large for one machine's memory, so it lies in a scratch folder that
client and workers share, as files that any of them maps into memory (`store`). A task (`tasks`) runs an analyzer's
function on some ranks or communicators and either writes what it returns there or sends it home (`engine`).
"""
