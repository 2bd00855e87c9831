# ruff: noqa: B018, E402
# A notebook in the percent format: VS Code, Spyder, PyCharm and Jupytext open it as cells. As a script it prints the
# text only: RUN=runs python samples/notebook.py

# %% [markdown]
# # A run in a notebook
#
# First record something, here or in a shell:
#
#     COMMLENS=1 torchrun --nproc-per-node 2 samples/ddp.py
#
# The newest run in `commlens-runs` is opened, or what the variable `RUN` names: a run, a folder of runs, or another
# profiler's traces.

# %%
import os

import commlens

run = commlens.open_run(os.environ.get("RUN", "commlens-runs"))
report = commlens.analyze(run)
report  # shows itself: verdict, findings and tables

# %% [markdown]
# ## Findings
#
# What is not known is `None`, and an abstention says why.

# %%
for finding in report.findings:
    print(f"{finding.id} ({finding.confidence}): {finding.title}")
    for action in finding.actions:
        print(f"    {action.text}")
for each in report.abstentions:
    print(f"not answered: {each.analysis}: {each.reason}")

# %% [markdown]
# ## Figures
#
# Each takes a report and returns a figure of plotly. Where there is nothing to show, it says why.

# %%
from commlens.ui import figures

figures.budget(report)

# %%
figures.rank_budgets(report)

# %%
figures.critical_path(report)

# %%
figures.bandwidth(report)

# %% [markdown]
# ## What if
#
# Every change that `commlens whatif --set` takes. A prediction has an interval; where there is none, the reason stands.

# %%
for scenario in commlens.simulate(run, "link.bandwidth=x2", "ddp.comm_hook=bf16", "overlap=perfect").scenarios:
    gain = scenario.predicted
    print(*scenario.set, f"{gain.low_ms:.3g} to {gain.high_ms:.3g} ms a step" if gain else scenario.abstention)

# %% [markdown]
# ## Tables
#
# Arrow tables of each rank, for whatever is not answered above. `docs/formats.md` names the columns.

# %%
collectives = run.ranks[min(run.ranks)].table("collectives")
print(collectives.group_by(["op", "in_bytes"]).aggregate([("blocked_ns", "sum"), ("seq", "count")]).to_pylist())
