"""From records on disk to batches: sources, mixture, images, labels, collation.

Nothing here imports the model: tokenizer, chat template and image processor are handed in.
"""
