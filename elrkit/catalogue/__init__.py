"""The shop's wing: a feed to the list of labels to look at, and what people decide about it. Imports the core alone."""
