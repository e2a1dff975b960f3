"""The report's wing: which runs, what they say beside the papers, and the book's tables and figures."""
