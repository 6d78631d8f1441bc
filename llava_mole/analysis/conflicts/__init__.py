"""How much the domains of a mixture pull against each other.

Before training, `measure.measure`: the cosine between the gradients that the domains give the
trainable weights; `gradients.domain_gradients` and `breakdown.conflicts` are its two halves, for a
model and batches that are at hand. After training, `transfer.read_transfer`: what runs trained on
one domain score on the others' benchmarks, and what their mixture loses.
"""
