"""From records to token ids and labels, one by one or, for their lengths alone, in batches."""
