"""Analysis of saved dynamics: averages, stability, comparison and figures."""
