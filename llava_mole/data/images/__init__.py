"""From image files that may be wrong or hostile to pixels, or to cached features of them."""
