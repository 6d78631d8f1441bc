"""Every record looked at before training: what is wrong, said by file, line, reason and remedy."""
