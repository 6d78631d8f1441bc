"""Which row is trained on a domain alone: its baseline."""

BASELINES = {
    "general": "llava-1.5-1-0-0",
    "document": "llava-doc-0-1-0",
    "biomedicine": "llava-med-0-0-1",
}
# With the domains that rows of six have beside them.
SINGLES = {**BASELINES, **{f"{domain}-short": f"llava-{domain}-short" for domain in BASELINES}}
