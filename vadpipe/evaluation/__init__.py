"""From scores and labels to figures: frame metrics, post-processing, intervals, the table. No torch here."""
