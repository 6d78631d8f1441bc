"""The paper's tables as runs: rows, plans, execution, results, reports.

A row is a small YAML file below ``configs/experiments`` (`rows`), put on what a scale trains
(`scales`). Rows times seeds resolve to runs, equal runs once (`runs`); a plan says what they are
and cost (`plan`, `cost`), `execute` trains and scores them side by side, `launch` writes them down
for several GPUs, `store` keeps one line of results for each, `report` makes tables and verdicts.
"""
